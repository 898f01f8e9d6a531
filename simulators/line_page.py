"""The pages of the simulated LINE: each person's conversation as bubbles, with buttons that work. HTML without script."""

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

from simulators.phone import clock_words

if TYPE_CHECKING:
    from simulators.line import Phone, Shown

_STYLE = """
body{margin:0;background:#d9dde3;color:#1c1b1f;font:17px/1.55 "Noto Sans CJK JP","Hiragino Sans",sans-serif}
main{max-width:390px;min-height:100vh;margin:0 auto;background:#8fb0dc;padding:0 0 20px;box-sizing:border-box}
h1{font-size:17px;margin:0 0 10px;padding:12px 14px;background:#2b3c55;color:#fff}
section{padding:0 12px}
article{max-width:88%;width:fit-content;background:#fff;border-radius:16px;margin:0 0 4px;overflow:hidden}
article.said{margin-left:auto;background:#b7ec8b}
h2{font-size:18px;margin:0;padding:12px 16px;color:#fff;background:var(--c,#1f5fa8)}
p{margin:0;padding:10px 16px;white-space:pre-line;overflow-wrap:anywhere}
form{margin:0;padding:0 12px 10px}
button,a.b{display:block;width:100%;min-height:46px;box-sizing:border-box;border:0;border-radius:8px;font:inherit;font-weight:bold;
background:#e6e8ec;color:#1c1b1f;margin:6px 0 0;padding:9px;text-align:center;text-decoration:none;cursor:pointer}
button.first{background:var(--c,#06713a);color:#fff}
a.b{background:none;color:#1f4f99}
small{display:block;color:#13233b;font-size:13px;margin:0 0 12px 4px}
small.said{text-align:right}
.write{position:sticky;bottom:0;display:flex;gap:6px;background:#eef1f5;padding:10px 12px;margin-top:8px}
.write input{flex:1;min-width:0;font:inherit;padding:8px;border:1px solid #76777a;border-radius:8px}
.write button{width:auto;margin:0}
li{padding:6px 0}
"""


# No `refresh`: where the address has a fragment, browsers take that for a way within the page, and show the old one for ever.
_AGAIN = """
history.scrollRestoration = "manual";
if (location.hash) scrollTo(0, document.body.scrollHeight);
setTimeout(() => location.reload(), 3000);
"""

NEWEST = "now"
"""Where the page of a conversation ends: an address with this fragment opens there."""


def people_page(names: Iterable[str]) -> str:
    """Whose phones there are."""
    rows = "".join(f'<li><a href="/phones/{quote(name, safe="")}">{html.escape(name)}</a></li>' for name in names)
    return _page("LINE（模擬）", f"<h1>LINE（模擬）</h1><section><ul>{rows or '<li>まだ誰もいません。</li>'}</ul></section>")


def phone_page(phone: "Phone") -> str:
    """One conversation. A form's `press` is `<number of the message>.<number of its button>`."""
    path = f"/phones/{quote(phone.name, safe='')}#{NEWEST}"
    bubbles = "".join(_bubble(number, one, path) for number, one in enumerate(phone.chat))
    state = "" if phone.follows else "（友だちではありません）"
    what, label = ("block", "ブロックする") if phone.follows else ("follow", "友だち追加")
    inside = (
        f"<h1>{html.escape(phone.name)} の LINE（模擬）{state}</h1>"
        f"<section>{bubbles or '<p>まだ何も届いていません。</p>'}</section>"
        f'<i id="{NEWEST}"></i>'
        f'<form class="write" method="post" action="{path}">'
        '<input name="text" aria-label="メッセージ" placeholder="メッセージ"><button>送る</button></form>'
        f'<form method="post" action="{path}"><button name="friend" value="{what}">{label}</button></form>'
    )
    return _page(f"{phone.name} の LINE（模擬）", inside)


def _bubble(number: int, one: "Shown", path: str) -> str:
    side = ' class="said"' if one.how == "said" else ""
    colour = f' style="--c:{html.escape(one.colour)}"' if one.colour else ""
    head = f"<h2>{html.escape(one.title)}</h2>" if one.title else ""
    text = f"<p>{html.escape(one.body)}</p>" if one.body else ""
    rows = []
    for at, action in enumerate(one.actions):
        label = html.escape(action.label)
        if action.type == "uri":
            rows.append(f'<a class="b" href="{html.escape(action.value)}" target="_blank" rel="noopener">{label}</a>')
        else:
            first = ' class="first"' if at == 0 else ""
            rows.append(f'<button name="press" value="{number}.{at}"{first}>{label}</button>')
    buttons = f'<form method="post" action="{path}">{"".join(rows)}</form>' if rows else ""
    return f"<article{side}{colour}>{head}{text}{buttons}</article><small{side}>{clock_words(one.at_us)}</small>"


def _page(title: str, inside: str) -> str:
    return (
        '<!doctype html><html lang="ja"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>{inside}</main>"
        f"<script>{_AGAIN}</script></body></html>"
    )
