"""The draft of the notice before cameras: one page of A4 in Japanese and English, with a QR. From the configuration."""

from html import escape

import segno

from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.keeping.config import DAY_S
from gateway.keeping.register import OPEN, days

_STYLE = (
    "@page{size:A4;margin:16mm}body{font-family:sans-serif;margin:0 auto;max-width:178mm;line-height:1.5}"
    "h1{font-size:34pt;margin:.2em 0;text-align:center}h2{font-size:20pt;margin:.2em 0;text-align:center}"
    "p{font-size:15pt;margin:.5em 0}.en{font-size:12pt;color:#222}.foot{display:flex;gap:10mm;align-items:center;"
    "border-top:2px solid #000;margin-top:8mm;padding-top:6mm}.foot svg{width:42mm;height:42mm;flex:none}"
)


def sign(config: GatewayConfig, place: str = "", url: str = "") -> str:
    """A page of HTML. `url`: what the QR opens; empty: the gateway's own. ConfigError without `[people]`."""
    people = config.people
    if people is None:
        raise ConfigError("people: the notice needs [people]: who runs the camera, and whom one can ask")
    address = url or people.public_url
    keep = config.keep
    # Of a place whose cameras have times of their own, what holds for each of them.
    own = [one.keep_pictures or keep.pictures for one in config.deployment if one.kind == "camera" and one.place == place]
    animals = max(own, default=keep.pictures)
    seen = min(keep.pictures_of_people, animals)
    town, phone = people.town or OPEN, people.office_phone or OPEN
    qr = segno.make(address, error="m").svg_inline(scale=4, border=2, title="QR")
    where = f"<p>設置場所: {escape(place)}<br><span class='en'>Place: {escape(place)}</span></p>" if place else ""
    return f"""<!doctype html>
<html lang="ja">
<head><meta charset="utf-8"><title>カメラ作動中</title><style>{_STYLE}</style></head>
<body>
<h1>野生動物監視カメラ 作動中</h1>
<h2 class="en" lang="en">Wildlife camera in operation</h2>
{where}
<p><b>目的</b> 野生動物の出没と、わなの作動を確認するためです。人を撮るためのものではありません。<br>
<span class="en" lang="en"><b>Purpose</b> To see wild animals and whether traps have closed.
It is not here to watch people.</span></p>
<p><b>人が写ったとき</b> 担当の職員だけが見ます。{escape(days(seen))}後に消去します。<br>
<span class="en" lang="en"><b>If you are in a picture</b> only the staff in charge can open it.
It is deleted after {seen // DAY_S} days.</span></p>
<p><b>動物の画像</b> {escape(days(animals))}後に消去します。捕獲の証拠の画像は、捕獲の記録とともに保存します。<br>
<span class="en" lang="en"><b>Pictures of animals</b> are deleted after {animals // DAY_S} days;
proof of a capture is kept with its record.</span></p>
<div class="foot">{qr}
<p><b>設置者</b> {escape(town)} {escape(people.office_name)} <br><b>問い合わせ</b> {escape(phone)}<br>
<span class="en" lang="en"><b>Run by</b> {escape(town)}. <b>Questions, or a picture of you</b>: call {escape(phone)}
or open the page.</span><br>
<span class="en">{escape(address)}</span></p></div>
</body>
</html>
"""
