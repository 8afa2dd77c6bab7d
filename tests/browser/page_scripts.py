"""
What is asked of a page in its own language.
"""

#: Every text that is shown: its size, and the contrast of its colour to what is behind it (WCAG 2,
#: 1.4.3), as a ratio from 1 to 21.
TEXTS = """
() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const drawing = element.closest(".svg-container");
    // of a figure's drawings, which lie one on the other, the first has the background
    let one = drawing ? drawing.querySelector(".main-svg") : element;
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (parts(colour).length < 4 || parts(colour)[3] > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim();
    const element = texts.currentNode.parentElement;
    if (!text || element.closest("script, style, noscript, .modebar")) continue;
    if (!element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [light(colour), light(behind(element))].sort((a, b) => b - a);
    const contrast_ratio = (high + 0.05) / (low + 0.05);
    found.push({ text, contrast_ratio, size_px: parseFloat(style.fontSize) });
  }
  return found;
}
"""

#: Of each figure: its size, how many points and labels are drawn in it, and the labels' texts.
FIGURES = """
() => [...document.querySelectorAll("figure .plot")].map((plot) => {
  const drawing = plot.querySelector("svg.main-svg");
  const box = drawing ? drawing.getBoundingClientRect() : { width: 0, height: 0, right: 0 };
  return {
    width_px: box.width,
    height_px: box.height,
    right_px: box.right,
    points: plot.querySelectorAll(".trace .point, .trace .js-line").length,
    labels: [...plot.querySelectorAll("svg text")].map((text) => text.textContent),
  };
})
"""

#: How far the page reaches to the right of the window.
EXCESS_PX = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"

#: The colours of the page and of each figure.
BACKGROUNDS = """
() => [document.body, ...document.querySelectorAll(".plot .main-svg:first-child")].map(
  (element) => getComputedStyle(element).backgroundColor
)
"""
