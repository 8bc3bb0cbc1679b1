"""Style and script of a run's page: the slider and the numbers under the mouse."""

from __future__ import annotations

STYLE = """
:root{--c0:#2f6fde;--c1:#d9622b;--c2:#2a9d6f;--c3:#9a5cc6;--c4:#c79a1b;--c5:#98a0ac;--c6:#c2477f;
--c7:#3aa6b9}
@media(prefers-color-scheme:dark){:root{--c0:#6ea2ff;--c1:#ff9a62;--c2:#5ccf9f;--c3:#c493ea;
--c4:#e9c352;--c5:#727985;--c6:#ef84b4;--c7:#74d3e3}}
h3{font-size:1rem;margin:.2rem 0 .5rem}h4{font-size:.8rem;font-weight:600;color:var(--soft);
margin:.9rem 0 .4rem}
em.state{font-size:.85rem;vertical-align:middle;padding:.15rem .7rem;margin-left:.4rem}
em.good{color:var(--good)}em.bad{color:var(--bad)}em.warn{color:var(--warn)}
.progress{height:.5rem;background:var(--shade);border-radius:99px;margin:1.1rem 0 .3rem;
overflow:hidden}.progress i{display:block;height:100%;background:var(--c0);border-radius:99px}
.card{background:var(--card);border-radius:12px;padding:.9rem 1.1rem;margin:0 0 .8rem;
box-shadow:0 1px 2px var(--line)}
.error{background:var(--card);border-left:4px solid var(--bad);border-radius:8px;
padding:.7rem 1rem;font-weight:600;overflow-wrap:anywhere}
pre{background:var(--card);border-radius:12px;padding:.8rem 1rem;overflow-x:auto;font-size:12px;
white-space:pre-wrap;overflow-wrap:anywhere}
.asset{display:grid;grid-template-columns:minmax(260px,384px) 1fr;gap:1.2rem;background:var(--card);
border-radius:16px;padding:1rem;margin-bottom:1rem;box-shadow:0 1px 2px var(--line)}
@media(max-width:760px){.asset{grid-template-columns:1fr}}
.asset h3{margin:.1rem 0 .3rem;overflow-wrap:anywhere}
.numbers{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;margin:.2rem 0 .8rem;color:var(--soft)}
.numbers b{color:var(--ink);font-variant-numeric:tabular-nums}.numbers em{background:none;padding:0}
.stills{display:flex;flex-wrap:wrap;gap:.5rem}
.stills figure{width:112px;border-radius:10px;box-shadow:none;background:var(--shade)}
.stills.large figure{width:176px}
.stills figcaption{padding:.25rem .5rem .35rem;color:var(--soft);text-align:center}
.compare{position:relative;border-radius:12px;overflow:hidden;aspect-ratio:1;
background:linear-gradient(var(--shade),var(--card))}
.compare img{position:absolute;inset:0;width:100%;height:100%;display:block}
.compare .before{clip-path:inset(0 calc(100% - var(--at)) 0 0);
background:linear-gradient(var(--shade),var(--card))}
.compare hr{position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin:0 0 0 -1px;border:0;
background:var(--c0);pointer-events:none;overflow:visible}
.compare hr::after{content:"";position:absolute;top:50%;left:50%;width:26px;height:26px;
margin:-13px 0 0 -13px;border-radius:50%;background:var(--c0);box-shadow:0 0 0 4px #ffffff88}
.compare span{position:absolute;bottom:.6rem;font-size:12px;font-weight:600;padding:.1rem .6rem;
border-radius:99px;background:var(--card);opacity:.9;pointer-events:none}
.compare .left{left:.6rem}.compare .right{right:.6rem}
.compare input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;
cursor:ew-resize}
.compare:focus-within{outline:2px solid var(--c0);outline-offset:2px}
.plots{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr))}
.plot{padding:.7rem .8rem .4rem;overflow:visible}.plot figcaption{padding:0 .2rem .3rem}
.plot figcaption b{font-size:13px}.plot svg{width:100%;display:block}
.plot .grid{stroke:var(--line)}.plot .mark{stroke:var(--soft);stroke-dasharray:3 4;opacity:.7}
.plot text{font:11px system-ui,sans-serif;fill:var(--soft)}.plot .y{text-anchor:end}
.plot .x{text-anchor:middle}
.plot path{fill:none;stroke-width:2;stroke-linejoin:round}
.plot path.faint{opacity:.45;stroke-width:1}.plot path.dashed{stroke-dasharray:6 5}
.plot output{position:absolute;top:2.2rem;right:1rem;background:var(--card);border-radius:8px;
padding:.3rem .6rem;font-size:12px;pointer-events:none;display:none;white-space:pre;
box-shadow:0 1px 6px #0003;font-variant-numeric:tabular-nums}
.plot:hover output.on{display:block}.cursor line{stroke:var(--soft);opacity:.6}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;color:var(--soft);font-size:12px}
.key::before{content:"";display:inline-block;width:.75rem;height:.22rem;border-radius:2px;
margin-right:.35rem;vertical-align:middle;background:var(--k)}
.key.faint::before{opacity:.5}
.key.dashed::before{background:linear-gradient(90deg,var(--k) 40%,transparent 40% 60%,var(--k) 60%)}
.stack{display:flex;height:1.2rem;border-radius:6px;overflow:hidden;margin:.3rem 0 .6rem}
.timeline{position:relative;height:1.1rem;background:var(--shade);border-radius:6px;
overflow:hidden}.timeline i{position:absolute;top:0;bottom:0;background:var(--c5);min-width:3px}
.timeline i.good{background:var(--c2)}.timeline i.bad{background:var(--c2);
border-right:5px solid var(--bad);box-sizing:border-box}
.ends{display:flex;justify-content:space-between;margin-top:.2rem}
table.num td:not(:first-child),table.num th:not(:first-child){text-align:right;
font-variant-numeric:tabular-nums}table.plain th{display:none}
""" + "".join(
    f".c{i}{{--k:var(--c{i})}}.s{i}{{stroke:var(--c{i})}}.d{i},.f{i}{{fill:var(--c{i});"
    f"background:var(--c{i})}}"
    for i in range(8)
)

SCRIPT = """
for (const box of document.querySelectorAll('.compare')) {
  const range = box.querySelector('input');
  if (range) range.addEventListener('input', () =>
    box.style.setProperty('--at', range.value + '%'));
}
for (const svg of document.querySelectorAll('svg[data-series]')) {
  const series = JSON.parse(svg.dataset.series), cursor = svg.querySelector('.cursor');
  const output = svg.parentNode.querySelector('output'), view = svg.viewBox.baseVal;
  svg.addEventListener('mouseleave', () => { cursor.innerHTML = ''; output.className = ''; });
  svg.addEventListener('mousemove', event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * view.width;
    const near = series.map(s => [s, s.p.reduce((a, b) =>
      Math.abs(b[2] - x) < Math.abs(a[2] - x) ? b : a)]);
    const lead = near.reduce((a, b) => Math.abs(b[1][2] - x) < Math.abs(a[1][2] - x) ? b : a)[1];
    cursor.innerHTML = `<line x1="${lead[2]}" x2="${lead[2]}" y1="10" y2="204"/>` +
      near.map(([s, p]) => `<circle class="d${s.c}" r="3.5" cx="${p[2]}" cy="${p[3]}"/>`).join('');
    output.textContent = `step ${lead[0].toLocaleString('en')}\\n` +
      near.map(([s, p]) => `${s.n}  ${p[1]}`).join('\\n');
    output.className = 'on';
  });
}
"""
