(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 600px)");
  const PRINT_WIDTH_PX = 680;

  function layoutOf(figure, isPrinted) {
    const isDark = dark.matches && !isPrinted;
    const layout = structuredClone(figure.layouts[isDark ? "dark" : "light"]);
    layout.height = figure.heightPx;
    if (isPrinted) layout.width = PRINT_WIDTH_PX;
    else layout.autosize = true;
    if (narrow.matches && !isPrinted) makeNarrow(layout, figure);
    return layout;
  }

  function makeNarrow(layout, figure) {
    layout.font.size = 11;
    if (figure.narrowColumns) layout.xaxis.ticktext = figure.narrowColumns;
    if (figure.narrowNames) {
      layout.yaxis.ticktext = figure.narrowNames;
      layout.yaxis.tickfont.size = 10;
      if (layout.xaxis2) layout.xaxis2.showticklabels = false;
    } else {
      // the legend has a line for each curve, above a plot that keeps its height
      layout.height += 22 * figure.traces.filter((trace) => trace.showlegend !== false).length;
    }
  }

  function tracesOf(figure, isPrinted) {
    const isDark = dark.matches && !isPrinted;
    return figure.traces.map((trace, number) =>
      isDark ? { ...trace, ...figure.darkLooks[number] } : { ...trace }
    );
  }

  const figures = [];
  for (const element of document.querySelectorAll("figure")) {
    const plot = element.querySelector(".plot");
    const figure = JSON.parse(element.querySelector("script").textContent);
    figure.plot = plot;
    figure.heightPx = parseInt(plot.style.height, 10);
    element.hidden = false;
    figures.push(figure);
  }

  function draw(isPrinted) {
    for (const figure of figures) {
      const layout = layoutOf(figure, isPrinted);
      figure.plot.style.height = layout.height + "px";
      Plotly.react(figure.plot, tracesOf(figure, isPrinted), layout, {
        responsive: true,
        displaylogo: false,
        displayModeBar: narrow.matches ? false : "hover",
        // named one by one: plotly's own choice has buttons that open its makers' site
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
      });
    }
  }

  draw(false);
  dark.addEventListener("change", () => draw(false));
  narrow.addEventListener("change", () => draw(false));
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw(false));
})();
