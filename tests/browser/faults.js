// Faults that automatic checkers of accessibility call serious, as far as they can be told without one.
() => {
  const faults = [];
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) faults.push(`sticks out by ${wide} px`);
  if (!document.documentElement.lang || !document.title) faults.push('no language or title');
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  const numbers = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest('.hidden, .skip, noscript')) continue;
    const style = getComputedStyle(e);
    const [x, y] = [light(numbers(style.color)), light(behind(e))];
    const ratio = (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)} of ${e.tagName} ${e.textContent.trim().slice(0, 30)}`);
  }
  for (const e of document.querySelectorAll('button, a[href], input, select, textarea')) {
    if (!e.getClientRects().length) continue;
    const labels = e.labels ? [...e.labels].map((l) => l.textContent).join('') : '';
    const name = e.getAttribute('aria-label') || labels || e.textContent;
    if (!name.trim()) faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
    const box = e.getBoundingClientRect();
    if (e.tagName === 'BUTTON' && (box.height < 24 || box.width < 24)) faults.push(`small: ${e.textContent}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice');
  return faults;
}
