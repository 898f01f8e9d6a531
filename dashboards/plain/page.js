// The plain page: devices with ages, open alerts, live. No library, no build.
//
// Everything from outside enters the page through textContent. Times and ages go by the gateway's clock, as a phone's
// may be wrong. What is not known is shown as not known: unheard devices, and everything once the stream is lost.

const QUIET_MS = 8000; // the gateway speaks every 4 s; people hear of a lost connection within 10 s
const BACKOFF_CAP_MS = 15000;
const RELOAD_MS = 30000; // nodes come and go without a word on the stream
const OPEN_STATES = "state=firing&state=acknowledged";

const TEXT = {
  ja: {
    title: "里守り",
    other: "English",
    tokenTitle: "トークンを入力してください",
    tokenText: "役場から届いたトークンで、わなやカメラの様子が見られます。",
    tokenLabel: "トークン",
    tokenSend: "開く",
    login: "パスキーやメールでログイン",
    account: "アカウント",
    tokenWrong: "このトークンは使えません。入力し直してください。",
    tokenForbidden: "このトークンでは、この画面を見られません。",
    alerts: "お知らせ",
    noAlerts: "対応が必要なお知らせは、今のところ届いていません。",
    devices: "機器の様子",
    noDevices: "まだ機器がありません。",
    acknowledge: "確認しました",
    acknowledgeFor: (where) => `${where} を確認しました`,
    open: "まだ誰も確認していません。",
    acknowledged: (who, when) => `${who}さんが確認しました（${when}）。`,
    acknowledgedByMember: (when) => `担当の方が確認しました（${when}）。`,
    going: (people, when) => `${people}人が行くと答えました（${when}）。`,
    late: "（遅れて届いた知らせです）",
    changed: "ほかの人が先に確認したか、状態が変わりました。",
    forbidden: "このトークンでは、確認の操作はできません。",
    failed: "送れませんでした。もう一度押してください。",
    lost: (when) => `接続が切れました。${when} 時点の値です`,
    never: "接続できません。つながるまで、様子は分かりません。",
    unknown: "不明",
    ok: "通信中",
    ringing: "お知らせあり",
    set: "作動していません",
    sprung: "作動",
    why: {
      never_heard: "まだ一度も通信がありません。",
      silent: "通信がありません。今の様子は分かりません。",
      node_offline: "親機と通信できません。今の様子は分かりません。",
      device_down: "機器を読み取れません。今の様子は分かりません。",
    },
    silentTrap: (span) => `わなと${span} 通信できません。作動しても知らせが届きません。見回りをお願いします。`,
    silentAlert: "通信できません。今の様子は分かりません。",
    silentTrapAlert: "通信できません。作動しても知らせが届きません。見回りをお願いします。",
    heard: (age) => `最後の通信 ${age}`,
    kinds: { sprung: "わな作動", silent: "通信なし", media: "撮影", flow: "人の流れ", home: "外出のお知らせ", battery: "電池", down: "故障", moved: "わなの揺れ", tamper: "機器に異常", button: "ボタン", other: "お知らせ" },
    batteryAlert: "電池が弱くなっています。",
    movedAlert: "わなが揺れました。作動したかどうかは分かりません。近づく前に安全を確認してください。",
    tamperAlert: "機器のふたが開いたか、線が切れました。確認をお願いします。",
    buttonAlert: "タグのボタンが押されました。",
    downAlert: "機器を読み取れません。今の様子は分かりません。",
    homeAlert: "近くにあるはずのタグが見つかりません。どなたかがご自宅を離れた可能性があります。",
    flowAlert: "人が多くなっています。",
    now: "たった今",
    ages: ["秒前", "分前", "時間前", "日前"],
    span: ["秒", "分", "時間", "日"],
    metrics: {
      heartbeat: "起動から", trap_closed: "わな", count_in: "入った人", count_out: "出た人", frames_bad: "壊れた受信",
      frames_foreign: "対象外の受信", tags_near: "近くのタグ", media_count: "写真", battery_voltage: "電池",
      rssi: "電波の強さ", snr: "電波の質", cpu_temperature: "親機の温度", cpu_load: "処理の混み具合",
      memory_free: "空きメモリ", disk_free: "空き容量", outbox_waiting: "未送信",
      battery_level: "電池の残り", tilt_angle: "傾き", bump: "揺れ", pir_count: "人感センサー", bait_level: "えさの残り",
      frames_lost: "届かなかった受信", media_withheld: "送らない写真", counter_resets: "数え直し", uplink_rssi: "通信の電波",
      disk_written: "書き込み量", throttled: "速度の制限", undervoltage: "電圧の不足", supply_voltage: "電源",
      clock_sync: "時計", agent_memory: "使用メモリ",
    },
    states: {
      throttled: ["なし", "制限中"], undervoltage: ["なし", "不足"],
      clock_sync: ["合っていません", "以前は合っていました", "合っています"],
    },
    units: { "{person}": "人", "{tag}": "個", "{file}": "枚", "{record}": "件" },
  },
  en: {
    title: "satomori",
    other: "日本語",
    tokenTitle: "Please enter your token",
    tokenText: "With the token from the town office you can see the traps and cameras.",
    tokenLabel: "Token",
    tokenSend: "Open",
    login: "Sign in with a passkey or by mail",
    account: "Your account",
    tokenWrong: "This token is not known. Please enter it again.",
    tokenForbidden: "This token may not see this page.",
    alerts: "Alerts",
    noAlerts: "No alert that needs an answer has arrived so far.",
    devices: "Devices",
    noDevices: "There are no devices yet.",
    acknowledge: "I have seen it",
    acknowledgeFor: (where) => `${where}: I have seen it`,
    open: "Nobody has confirmed it yet.",
    acknowledged: (who, when) => `Confirmed by ${who} (${when}).`,
    acknowledgedByMember: (when) => `Confirmed by somebody who looks after it (${when}).`,
    going: (people, when) => `${people} said that they go (${when}).`,
    late: " (this arrived late)",
    changed: "Somebody else confirmed it first, or it has changed.",
    forbidden: "This token may not confirm alerts.",
    failed: "It could not be sent. Please press again.",
    lost: (when) => `Connection lost. Values from ${when}`,
    never: "No connection. Until there is one, nothing is known.",
    unknown: "Unknown",
    ok: "In contact",
    ringing: "Alert",
    set: "Not sprung",
    sprung: "Sprung",
    why: {
      never_heard: "Never heard so far.",
      silent: "Silent. How it is now is not known.",
      node_offline: "Its node can't be reached. How it is now is not known.",
      device_down: "It can't be read. How it is now is not known.",
    },
    silentTrap: (span) => `No contact for ${span}. If it springs, no word of it will arrive. Please go and look.`,
    silentAlert: "It can't be reached. How it is now is not known.",
    silentTrapAlert: "It can't be reached. If it springs, no word of it will arrive. Please go and look.",
    heard: (age) => `Last heard ${age}`,
    kinds: { sprung: "Trap sprung", silent: "Silent", media: "Picture", flow: "Crowd", home: "Away from home?", battery: "Battery", down: "Broken", moved: "Trap moved", tamper: "Tampering?", button: "Button", other: "Alert" },
    batteryAlert: "The battery is getting weak.",
    movedAlert: "The trap was shaken. Whether it sprang is not known. Make sure that it is safe before you come near.",
    tamperAlert: "The device's lid was opened or its wire was cut. Please have a look.",
    buttonAlert: "The button of a tag was pressed.",
    downAlert: "The device can't be read. How it is now is not known.",
    homeAlert: "Fewer tags are heard than should be at home. Somebody may have left.",
    flowAlert: "More people pass than the limit set for this place.",
    now: "just now",
    ages: [" s ago", " min ago", " h ago", " d ago"],
    span: [" s", " min", " h", " d"],
    metrics: {
      heartbeat: "Running for", trap_closed: "Trap", count_in: "People in", count_out: "People out",
      frames_bad: "Damaged frames", frames_foreign: "Foreign frames", tags_near: "Tags near", media_count: "Pictures",
      battery_voltage: "Battery", rssi: "Signal", snr: "Signal-to-noise", cpu_temperature: "Node temperature",
      cpu_load: "Node load", memory_free: "Free memory", disk_free: "Free disk", outbox_waiting: "Not sent yet",
      battery_level: "Battery left", tilt_angle: "Tilt", bump: "Shocks", pir_count: "Motion", bait_level: "Bait left",
      frames_lost: "Frames lost", media_withheld: "Pictures kept back", counter_resets: "Counter resets",
      uplink_rssi: "Network signal", disk_written: "Written to disk", throttled: "Slowed down", undervoltage: "Low supply",
      supply_voltage: "Supply", clock_sync: "Clock", agent_memory: "Memory used",
    },
    states: {
      throttled: ["no", "yes"], undervoltage: ["no", "yes"],
      clock_sync: ["not right", "was right earlier", "right"],
    },
    units: { "{person}": "", "{tag}": "", "{file}": "", "{record}": "" },
  },
};

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

let language = localStorage.getItem("language") === "en" ? "en" : "ja";
let token = null;
let devices = new Map(); // "node/device" -> as the API gives it, its latest by metric
let alerts = new Map(); // id -> as the API gives it
let faults = new Map(); // alert id -> what went wrong with its button
let sending = new Set(); // alert ids
let staleAfterS = 600;
let gatewayAhead = null; // gateway's µs minus performance.now() in µs; null until it was heard
let heardAt = null; // gateway's µs when the stream last said anything
let lost = false;
let reloadDue = null;
let failures = 0; // attempts since the page was last connected
let shownAlerts = null; // what the lists were last built from
let shownDevices = null;

const t = () => TEXT[language];
const nowUs = () => performance.now() * 1000 + gatewayAhead;

// ---- Words -------------------------------------------------------------------------------------------

// A town's clock is the town's, wherever the reader is.
const inTown = (us, options) => new Intl.DateTimeFormat(language, { timeZone: "Asia/Tokyo", ...options })
  .formatToParts(us / 1000).reduce((all, part) => ({ ...all, [part.type]: part.value }), {});

function time(us) {
  const { hour, minute } = inTown(us, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  if (language === "en") return `${hour}:${minute}`;
  return `${hour < 12 ? "午前" : "午後"}${hour % 12}時${Number(minute)}分`;
}

function day(us) {
  const { month, day: date } = inTown(us, { month: language === "en" ? "short" : "numeric", day: "numeric" });
  return language === "en" ? `${date} ${month}` : `${month}月${date}日`;
}

const moment = (us) => `${day(us)} ${time(us)}`;

function inUnits(seconds, words) {
  if (seconds < 60) return `${Math.floor(seconds)}${words[0]}`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}${words[1]}`;
  if (seconds < 259200) return `${Math.floor(seconds / 3600)}${words[2]}`;
  return `${Math.floor(seconds / 86400)}${words[3]}`;
}

function age(us) {
  const seconds = Math.max(0, (nowUs() - us) / 1e6);
  return seconds < 5 ? t().now : inUnits(seconds, t().ages);
}

const number = (value, digits) => new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

function value(reading) {
  const { metric, unit } = reading;
  if (metric === "trap_closed") return reading.value ? t().sprung : t().set;
  const states = t().states[metric];
  if (states) return states[reading.value] ?? t().unknown;
  if (unit === "s") return inUnits(reading.value, t().span);
  if (unit === "By") return `${number(reading.value / 2 ** 20, 0)} MiB`;
  if (unit === "Cel") return `${number(reading.value, 1)} ℃`;
  if (unit === "deg") return `${number(reading.value, 0)}°`;
  if (unit === "dB[mW]") return `${number(reading.value, 0)} dBm`;
  if (unit in t().units) return `${number(reading.value, 0)}${t().units[unit]}`;
  return `${number(reading.value, 2)}${unit === "1" ? "" : ` ${unit}`}`;
}

const where = (thing) => `${thing.place} ${thing.label}`.trim() || `${thing.node} ${thing.device}`;

function alertKind(alert) {
  if (alert.summary === "trap_sprung") return "sprung";
  if (alert.summary.startsWith("no ")) return "silent";
  if (alert.summary === "media_captured") return "media";
  if (alert.summary === "trap_moved") return "moved";
  if (alert.summary === "tamper_opened") return "tamper";
  if (alert.summary === "button_pressed") return "button";
  const measured = alert.summary.split(" ")[0];
  if (measured === "tags_near" && alert.kind === "home") return "home";
  if (["count_in", "count_out"].includes(measured)) return "flow";
  if (measured === "battery_voltage") return "battery";
  return measured === "device_down" ? "down" : "other";
}

// ---- What is shown -----------------------------------------------------------------------------------

function unknownWhy(device) {
  if (device.heard_us === null) return "never_heard";
  // Judged here too: time passes while the gateway says nothing new.
  if (nowUs() - device.heard_us > staleAfterS * 1e6) return "silent";
  return device.unknown_why;
}

function whyUnknown(device, why) {
  if (why === "never_heard") return t().why[why];
  const silentS = Math.max(0, (nowUs() - device.heard_us) / 1e6);
  if (why === "silent" && device.latest.has("trap_closed")) return t().silentTrap(inUnits(silentS, t().span));
  return `${t().why[why]} ${t().heard(age(device.heard_us))}`;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Changes only what differs, so that focus, selection and a screen reader stay where they are.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function alertItem(alert) {
  const item = element("li", alert.state);
  item.dataset.id = alert.id;
  item.append(element("h3", "", `【${t().kinds[alertKind(alert)]}】${where(alert)}`));
  item.append(element("p", "", `${moment(alert.since_us)}${alert.late ? t().late : ""}`));
  const said = {
    silent: alert.kind === "trap" ? t().silentTrapAlert : t().silentAlert,
    flow: t().flowAlert,
    home: t().homeAlert,
    battery: t().batteryAlert,
    down: t().downAlert,
    moved: t().movedAlert,
    tamper: t().tamperAlert,
    button: t().buttonAlert,
    other: alert.summary,
  }[alertKind(alert)];
  if (said) item.append(element("p", "", said));
  if (alert.state === "firing") {
    item.append(element("p", "", t().open));
    const button = element("button", "", t().acknowledge);
    button.type = "button";
    button.setAttribute("aria-label", t().acknowledgeFor(where(alert)));
    button.disabled = sending.has(alert.id);
    button.addEventListener("click", () => acknowledge(alert));
    item.append(button);
  } else {
    // Contacts are ids here: their names are not for everybody who sees this page.
    const people = alert.acknowledged_by.split(", ").filter((who) => /^[0-9a-f]{16}$/.test(who)).length;
    const said = people ? t().going(people, time(alert.acknowledged_us))
      : alert.acknowledged_by.startsWith("contact:") ? t().acknowledgedByMember(time(alert.acknowledged_us))
      : t().acknowledged(alert.acknowledged_by, time(alert.acknowledged_us));
    item.append(element("p", "", said));
  }
  if (faults.has(alert.id)) item.append(element("p", "fault", t()[faults.get(alert.id)]));
  return item;
}

function showAlerts() {
  $("no-alerts").hidden = alerts.size > 0 || lost;
  // The list is a live region: built anew only when it says something else.
  const wanted = JSON.stringify([language, [...alerts.values()], [...faults], [...sending]]);
  if (wanted === shownAlerts) return;
  shownAlerts = wanted;
  const focused = document.activeElement?.closest("#alerts > li")?.dataset.id;
  const ordered = [...alerts.values()].sort(
    (a, b) => (a.state === "firing" ? 0 : 1) - (b.state === "firing" ? 0 : 1) || b.since_us - a.since_us,
  );
  $("alerts").replaceChildren(...ordered.map(alertItem));
  if (focused) [...$("alerts").children].find((item) => item.dataset.id === focused)?.querySelector("button")?.focus();
  const firing = ordered.filter((alert) => alert.state === "firing").length;
  document.title = firing ? `(${firing}) ${t().title}` : t().title;
}

function readingRows(device) {
  const list = element("dl");
  for (const reading of device.latest.values()) {
    const row = element("div");
    row.dataset.metric = reading.metric;
    row.append(element("dt", "", t().metrics[reading.metric] ?? reading.metric), element("dd"), element("dd", "age"));
    list.append(row);
  }
  return list;
}

function deviceItem(device) {
  const item = element("li");
  item.dataset.device = `${device.node}/${device.device}`;
  const heading = element("h3");
  heading.append(element("span", "", where(device)), element("span", "state"));
  item.append(heading, element("p", "why"), readingRows(device), element("p", "name", `${device.node} / ${device.device}`));
  return item;
}

// Values, states and ages of the devices that stand there: once a second, and when something was said.
function refresh() {
  if (gatewayAhead === null) return;
  const shownAt = lost ? heardAt : nowUs();
  setText($("clock"), moment(shownAt));
  for (const item of $("devices").children) {
    const device = devices.get(item.dataset.device);
    const why = unknownWhy(device);
    const trap = device.latest.get("trap_closed");
    const status = device.status === "alert" || (trap?.value && !why) ? "alert" : why ? "unknown" : "ok";
    if (item.className !== status) item.className = status;
    const known = trap ? (trap.value ? t().sprung : t().set) : t().ok;
    const state = why ? t().unknown : status === "alert" && !trap?.value ? t().ringing : known;
    setText(item.querySelector(".state"), state);
    item.toggleAttribute("data-unknown", Boolean(why));
    setText(item.querySelector(".why"), why ? whyUnknown(device, why) : "");
    for (const row of item.querySelectorAll("dl > div")) {
      const reading = device.latest.get(row.dataset.metric);
      setText(row.children[1], value(reading));
      setText(row.children[2], age(reading.time_us));
    }
  }
  $("lost").hidden = !lost;
  if (lost) setText($("lost"), t().lost(time(heardAt)));
}

function showDevices() {
  // Those that need eyes first: alerts, then unknown, then the rest, each by place.
  const rank = (device) => (device.status === "alert" ? 0 : unknownWhy(device) ? 1 : 2);
  const ordered = [...devices.values()].sort(
    (a, b) => rank(a) - rank(b) || where(a).localeCompare(where(b), "ja") || a.device.localeCompare(b.device),
  );
  const wanted = JSON.stringify([language, ordered.map((one) => [one.node, one.device, where(one), [...one.latest.keys()]])]);
  if (wanted !== shownDevices) $("devices").replaceChildren(...ordered.map(deviceItem));
  shownDevices = wanted;
  $("no-devices").hidden = devices.size > 0;
  refresh();
}

function showWords() {
  document.documentElement.lang = language;
  for (const [id, word] of [
    ["title", "title"], ["language", "other"], ["token-title", "tokenTitle"], ["token-text", "tokenText"],
    ["token-label", "tokenLabel"], ["token-send", "tokenSend"], ["login", "login"], ["account", "account"], ["alerts-title", "alerts"], ["no-alerts", "noAlerts"],
    ["devices-title", "devices"], ["no-devices", "noDevices"],
  ]) setText($(id), t()[word]);
  $("language").lang = language === "ja" ? "en" : "ja";
  if (gatewayAhead !== null) {
    showAlerts();
    showDevices();
  } else if (!$("lost").hidden) {
    setText($("lost"), t().never);
  }
}

// ---- Talking to the gateway --------------------------------------------------------------------------

class Refused extends Error {
  constructor(status) {
    super(`HTTP ${status}`);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const response = await fetch(`/api/v1/${path}`, {
    ...options,
    headers: token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers,
    cache: "no-store",
  });
  if (!response.ok) throw new Refused(response.status);
  return response;
}

async function loadLists(signal) {
  const [deviceList, alertList] = await Promise.all([
    ask("devices", { signal }).then((response) => response.json()),
    ask(`alerts?${OPEN_STATES}&limit=1000`, { signal }).then((response) => response.json()),
  ]);
  gatewayAhead = deviceList.now_us - performance.now() * 1000;
  staleAfterS = deviceList.stale_after_s;
  devices = new Map(deviceList.devices.map((device) => [
    `${device.node}/${device.device}`,
    { ...device, latest: new Map(device.latest.map((reading) => [reading.metric, reading])) },
  ]));
  // An alert that the stream told of meanwhile may be newer than the list.
  const known = alerts;
  alerts = new Map(alertList.alerts.map((alert) => {
    const mine = known.get(alert.id);
    return [alert.id, mine && mine.version > alert.version ? mine : alert];
  }));
  showAlerts();
  showDevices();
}

// Lists again, soon: many reasons within a second are one.
function reloadSoon(ms = 1000) {
  reloadDue ??= setTimeout(async () => {
    reloadDue = null;
    try {
      await loadLists(AbortSignal.timeout(10000));
    } catch (error) {
      console.warn("the lists could not be read; the stream decides whether the connection is lost", error);
    }
  }, ms);
}

function heard(kind, body) {
  if (kind === "resync") {
    reloadSoon(0);
  } else if (kind === "alert") {
    const known = alerts.get(body.id);
    if (known && known.version > body.version) return;
    if (body.state === "firing" || body.state === "acknowledged") alerts.set(body.id, body);
    else alerts.delete(body.id);
    faults.delete(body.id);
    showAlerts();
    reloadSoon();
  } else if (kind === "event") {
    const device = devices.get(`${body.node}/${body.device}`);
    if (!device || body.type === "device_down" || body.type === "device_up") reloadSoon();
    else device.heard_us = Math.max(device.heard_us ?? 0, Math.min(body.time_us, body.received_us));
  } else if (kind === "latest") {
    for (const row of body.rows) {
      const device = devices.get(`${row.node}/${row.device}`);
      if (!device?.latest.has(row.metric) || device.unknown_why) reloadSoon();
      if (!device?.latest.has(row.metric)) continue;
      device.latest.set(row.metric, { ...device.latest.get(row.metric), ...row });
      device.heard_us = Math.max(device.heard_us ?? 0, Math.min(row.time_us, row.received_us));
    }
    refresh();
  }
}

// Reads one stream to its end; every sign of life calls `alive`.
async function follow(stream, alive) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let first = true;
  for (;;) {
    const { done, value: piece } = await reader.read();
    if (done) return;
    alive();
    if (first) {
      // From the first line on we hear everything, so lists read now have no gap to it.
      first = false;
      await loadLists(AbortSignal.timeout(QUIET_MS));
      connected();
      alive();
    }
    text += piece;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => {
        const at = line.indexOf(": ");
        return [line.slice(0, at), line.slice(at + 2)];
      }));
      if (fields.event) heard(fields.event, JSON.parse(fields.data));
    }
  }
}

function connected() {
  lost = false;
  failures = 0;
  document.body.classList.remove("lost");
  $("token-form").hidden = true;
  $("town").hidden = false;
  $("account").hidden = Boolean(token);
  $("lost").hidden = true;
  showAlerts();
  refresh();
}

function disconnected() {
  if (gatewayAhead === null) {
    $("lost").hidden = false;
    setText($("lost"), t().never);
    return;
  }
  lost = true;
  document.body.classList.add("lost");
  showAlerts();
  refresh();
}

async function live() {
  for (;;) {
    const stop = new AbortController();
    let watchdog = null;
    const alive = () => {
      if (gatewayAhead !== null) heardAt = nowUs();
      clearTimeout(watchdog);
      watchdog = setTimeout(() => stop.abort(new Error("nothing heard")), QUIET_MS);
    };
    try {
      watchdog = setTimeout(() => stop.abort(new Error("no answer")), QUIET_MS);
      const response = await ask("stream", { signal: stop.signal });
      await follow(response.body, alive);
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        // Without a token we asked by the session that the browser may have.
        askForToken(error.status === 403 ? "tokenForbidden" : token ? "tokenWrong" : undefined);
        return;
      }
      console.warn("the stream ended", error);
    } finally {
      clearTimeout(watchdog);
      stop.abort();
    }
    disconnected();
    failures += 1;
    // Full jitter, so that a town of phones does not come back in step; never at once.
    await sleep(300 + Math.random() * Math.min(BACKOFF_CAP_MS, 500 * 2 ** failures));
  }
}

async function acknowledge(alert) {
  sending.add(alert.id);
  faults.delete(alert.id);
  showAlerts();
  try {
    const response = await ask(`alerts/${encodeURIComponent(alert.id)}/acknowledge`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ version: alert.version }),
      signal: AbortSignal.timeout(10000),
    });
    heard("alert", await response.json());
  } catch (error) {
    const status = error instanceof Refused ? error.status : 0;
    faults.set(alert.id, status === 409 ? "changed" : status === 403 ? "forbidden" : "failed");
    if (status === 409) reloadSoon(0);
    console.warn("not acknowledged", error);
  } finally {
    sending.delete(alert.id);
    showAlerts();
  }
}

// ---- Coming in ---------------------------------------------------------------------------------------

// Only where this gateway has accounts.
async function offerLogin() {
  try {
    $("login").parentElement.hidden = !(await fetch("/login", { method: "HEAD", cache: "no-store" })).ok;
  } catch (error) {
    console.warn("whether there is a page to sign in is not known", error);
  }
}

function askForToken(fault) {
  sessionStorage.removeItem("token");
  token = null;
  $("town").hidden = true;
  $("account").hidden = true;
  $("lost").hidden = true;
  $("token-form").hidden = false;
  $("token-fault").hidden = !fault;
  if (fault) $("token-fault").textContent = t()[fault];
  $("token").value = "";
  $("token").focus();
  offerLogin();
}

function comeIn(given) {
  token = given;
  sessionStorage.setItem("token", given);
  live();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("token-fault").hidden = true;
  comeIn($("token").value.trim());
});

$("language").addEventListener("click", () => {
  language = language === "ja" ? "en" : "ja";
  localStorage.setItem("language", language);
  showWords();
});

// The token travels in the fragment, which no server sees, and leaves the address bar at once.
const fragment = new URLSearchParams(location.hash.slice(1)).get("token");
if (fragment !== null) history.replaceState(null, "", location.pathname);

showWords();
setInterval(refresh, 1000);
setInterval(() => { if (!$("town").hidden && !lost && gatewayAhead !== null) reloadSoon(); }, RELOAD_MS);

const given = fragment || sessionStorage.getItem("token");
if (given) comeIn(given);
else live();
