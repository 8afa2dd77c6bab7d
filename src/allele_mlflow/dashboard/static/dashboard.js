(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 600px)");

  async function load(figure, scheme) {
    const held = figure.querySelector(`script[data-scheme="${scheme}"]`);
    if (held) return JSON.parse(held.textContent);
    const source = figure.dataset.source;
    if (!source) return null;
    const join = source.includes("?") ? "&" : "?";
    const answer = await fetch(`${source}${join}scheme=${scheme}`, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(`no figure: HTTP ${answer.status}`);
    return answer.status === 204 ? null : answer.json();
  }

  function fitted(found) {
    const layout = { ...found.layout, height: found.height_px, autosize: true };
    if (!narrow.matches) return layout;
    layout.font = { ...layout.font, size: 11 };
    if (found.narrow_names) {
      const tickfont = { ...(layout.yaxis || {}).tickfont, size: 10 };
      layout.yaxis = { ...layout.yaxis, ticktext: found.narrow_names, tickfont };
      if (layout.xaxis2) layout.xaxis2 = { ...layout.xaxis2, showticklabels: false };
    } else {
      // the legend has a line for each curve, below a plot that keeps its height
      layout.height += 22 * found.data.filter((trace) => trace.showlegend !== false).length;
    }
    return layout;
  }

  async function draw(figure) {
    const note = figure.querySelector(".figure-note");
    try {
      const found = await load(figure, dark.matches ? "dark" : "light");
      figure.hidden = !found;
      if (!found) {
        figure.dataset.empty = "yes";
        return;
      }
      const plot = figure.querySelector(".plot");
      const layout = fitted(found);
      plot.style.height = `${layout.height}px`;
      if (found.title) figure.querySelector("strong").textContent = found.title;
      note.textContent = found.note;
      await Plotly.react(plot, found.data, layout, {
        responsive: true,
        displaylogo: false,
        displayModeBar: narrow.matches ? false : "hover",
        // named one by one: plotly's own choice has buttons that open its makers' site
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
      });
      figure.dataset.drawn = "yes";
    } catch (error) {
      figure.hidden = false;
      figure.dataset.empty = "yes";
      note.textContent = String(error.message);
    }
  }

  function follow(element) {
    const events = new EventSource(element.dataset.live);
    events.addEventListener("look", (event) => {
      const before = element.querySelector(".scroll");
      const hadFocus = before !== null && before === document.activeElement;
      const [top, left] = before ? [before.scrollTop, before.scrollLeft] : [0, 0];
      element.innerHTML = JSON.parse(event.data); // our own template's, which escapes
      const after = element.querySelector(".scroll");
      if (after) after.scrollTo(left, top);
      if (after && hadFocus) after.focus({ preventScroll: true });
    });
    events.addEventListener("end", () => {
      events.close();
      // once: the server gives no stream to the page of a run that is over
      history.replaceState([window.scrollX, window.scrollY], "");
      location.reload();
    });
  }

  // figures make the page longer after the browser has been back at its place
  function scrollBack() {
    if (!history.state) return;
    window.scrollTo(...history.state);
    history.replaceState(null, "");
  }

  const figures = [...document.querySelectorAll("figure[data-figure]")];
  const drawAll = () => Promise.all(figures.map(draw));
  drawAll().then(scrollBack);
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  document.querySelectorAll("[data-live]").forEach(follow);
})();
