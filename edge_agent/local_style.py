"""How the local page looks: first for a phone in the sun, then for anything wider."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ground:#eef3f6;--card:#fff;--ink:#12232e;--soft:#566b78;
--line:#dbe4ea;--water:#0b6e99;--good:#0f7b4f;--fair:#a35c00;--bad:#b3261e;--on:#fff}
@media(prefers-color-scheme:dark){:root{--ground:#0d171e;--card:#15232c;--ink:#e6eff4;--soft:#9db1bd;
--line:#263843;--water:#58b7dd;--good:#1f8f61;--fair:#b06d12;--bad:#c2453d}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:60rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.25rem}
.brand{margin:0;color:var(--water);font-weight:600;font-size:.85rem;letter-spacing:.02em}
h1{margin:.1rem 0 .9rem;font-size:1.7rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:0 0 .6rem;font-size:1.05rem}
.verdict,.card{margin-bottom:.8rem;break-inside:avoid}
.verdict{border-radius:.9rem;padding:1rem 1.1rem;color:var(--on)}
.verdict h2{font-size:1.3rem;margin:0}.verdict p{margin:.3rem 0 0}
.verdict ul{margin:.6rem 0 0;padding-left:1.1rem}
.verdict code{opacity:.85;font-size:.8rem}
.good{background:var(--good)}.fair{background:var(--fair)}.bad{background:var(--bad)}
.card,details{background:var(--card);border:1px solid var(--line);border-radius:.9rem;
padding:1rem 1.1rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.35rem 1rem;margin:0}
dt{color:var(--soft)}dd{margin:0;text-align:right;font-weight:600;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.45rem 0;border-top:1px solid var(--line);text-align:right;font-weight:600}
th:first-child{text-align:left;overflow-wrap:anywhere}
h3{grid-column:1/-1;margin:0;font-size:1rem;overflow-wrap:anywhere}
.source{display:grid;grid-template-columns:repeat(3,1fr);gap:.15rem .6rem;margin-bottom:.8rem;
padding-bottom:.8rem;border-bottom:1px solid var(--line)}
.source span{color:var(--soft);font-size:.85rem}
.source b{display:block;color:var(--ink);font-size:1.1rem;font-variant-numeric:tabular-nums}
th+th,td{padding-left:.8rem}
i{display:inline-block;font-style:normal;font-size:.78rem;padding:.05rem .5rem;border-radius:1rem;
color:var(--on);vertical-align:.08rem}
.up{background:var(--good)}.down{background:var(--bad)}
small{color:var(--soft);font-weight:400}
.bar{display:grid;grid-template-columns:1fr auto;gap:.1rem .8rem;margin-bottom:.7rem}
.bar span{color:var(--soft)}.bar b{font-variant-numeric:tabular-nums}
meter{grid-column:1/-1;width:100%;height:.6rem;appearance:none;border:0;border-radius:1rem;
background:var(--line);overflow:hidden}
meter::-webkit-meter-bar{background:var(--line);border:0;border-radius:1rem;height:.6rem}
meter::-webkit-meter-optimum-value{background:var(--water);border-radius:1rem}
meter::-moz-meter-bar{background:var(--water)}
.low meter::-webkit-meter-optimum-value{background:var(--bad)}
.low meter::-moz-meter-bar{background:var(--bad)}
.low b{color:var(--bad)}
details{margin:0 0 .8rem}
summary{cursor:pointer;font-weight:600}.all{margin-top:.6rem;font-size:.9rem}
.all th{font-weight:400;color:var(--soft)}
footer{color:var(--soft);font-size:.85rem;padding-top:1rem;padding-bottom:2rem}
a{color:var(--water)}
@media(min-width:46rem){.cards{columns:2;column-gap:.8rem}}
"""
