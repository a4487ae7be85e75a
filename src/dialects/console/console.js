// What is live: windows that follow the stream, dialogs, keys. All else works without it.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* Times: written by the server, kept true here, in the same units. */

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

// How far this machine's clock is behind the server's.
let ahead = 0;
const said = document.body.dataset.now;
if (said) ahead = Date.parse(said) - Date.now();

function tick() {
  if (document.hidden) return;
  for (const time of all("time:not(.clock)")) {
    const text = span(Date.now() + ahead - Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}
setInterval(tick, 1000);

/* A live table. While a row has focus, choice, pointer or a dialog, the order stays: values go on. */

class LiveTable {
  constructor(table) {
    this.table = table;
    this.body = $("tbody", table);
    this.view = table.dataset.view;
    this.fresh = $("[data-fresh]");
    this.pending = null;
    this.paused = false;
    for (const type of ["pointerleave", "focusout", "change"]) {
      table.addEventListener(type, () => setTimeout(() => this.release()));
    }
    if (this.fresh) this.fresh.addEventListener("click", () => this.show());
    const pause = $("[data-pause]");
    if (pause) {
      pause.hidden = false;
      pause.addEventListener("click", () => {
        this.paused = !this.paused;
        pause.setAttribute("aria-pressed", this.paused);
        this.release();
      });
    }
  }

  rows() {
    return new Map(all("tr[data-id]", this.body).map((row) => [row.dataset.id, row]));
  }

  isHeld() {
    return this.paused || this.table.matches(":hover") || this.table.contains(document.activeElement)
      || !!$("input:checked", this.body) || !!$("dialog[open]");
  }

  apply(news) {
    const rows = this.rows();
    for (const [id, cells] of Object.entries(news.cells)) {
      const row = rows.get(id);
      if (row) this.fill(row, cells);
    }
    for (const id of news.over) rows.get(id)?.classList.add("over");
    if (news.total) for (const place of all("[data-total]")) place.textContent = news.total;
    if (news.rows) this.table.setAttribute("aria-rowcount", news.rows);
    if (news.order) {
      const held = this.pending?.cells ?? {};
      for (const [id, cells] of Object.entries(news.cells)) held[id] = { ...held[id], ...cells };
      this.pending = { order: news.order, cells: held, over: news.over };
      if (!this.isHeld()) return this.show();
      const added = news.order.filter((id) => !rows.has(id)).length;
      for (const [id, row] of rows) if (!news.order.includes(id)) row.classList.add("gone");
      this.say(added);
    } else if (this.pending) {
      for (const [id, cells] of Object.entries(news.cells)) {
        this.pending.cells[id] = { ...this.pending.cells[id], ...cells };
      }
    }
  }

  fill(row, cells) {
    for (const [name, html] of Object.entries(cells)) {
      const cell = $(`[data-cell="${name}"]`, row);
      if (!cell) continue;
      // A time that goes on keeps its place, so that nothing is laid out anew.
      const time = /^<time datetime="([^"]*)" title="([^"]*)">[^<]*<\/time>$/.exec(html);
      const shown = cell.children.length === 1 && cell.firstElementChild;
      if (time && shown && shown.localName === "time") [shown.dateTime, shown.title] = [time[1], time[2]];
      else cell.innerHTML = html;
    }
  }

  say(count) {
    if (!this.fresh) return;
    this.fresh.hidden = count === 0;
    const text = count ? `+${count} new` : "";
    if (this.fresh.textContent !== text) this.fresh.textContent = text;
  }

  release() {
    if (this.pending && !this.isHeld()) this.show();
  }

  show() {
    if (!this.pending) return;
    const { order, cells, over } = this.pending;
    this.pending = null;
    this.say(0);
    const rows = this.rows();
    const chosen = !!$("thead .choose", this.table);
    const columns = all("thead [data-cell]", this.table).map((cell) => cell.dataset.cell);
    const first = +(this.body.dataset.first ?? 2);
    order.forEach((id, index) => {
      let row = rows.get(id);
      if (!row) {
        row = document.createElement("tr");
        row.dataset.id = id;
        if (chosen) row.append(this.choice(id, cells[id]));
        for (const name of columns) {
          const cell = row.insertCell();
          cell.dataset.cell = name;
        }
        this.fill(row, cells[id] ?? {});
        if (over.includes(id)) row.className = "over";
      }
      row.classList.remove("gone");
      row.setAttribute("aria-rowindex", first + index);
      if (this.body.children[index] !== row) this.body.insertBefore(row, this.body.children[index] ?? null);
    });
    while (this.body.children.length > order.length) this.body.lastElementChild.remove();
    const nothing = $(".empty");
    if (nothing) nothing.hidden = order.length > 0;
  }

  choice(id, cells) {
    const cell = document.createElement("td");
    cell.className = "choose";
    if (cells?.act) {
      const who = document.createElement("template");
      who.innerHTML = cells.who ?? "";
      const box = document.createElement("input");
      Object.assign(box, { type: "checkbox", name: "ref", value: id });
      box.setAttribute("form", "chosen");
      box.setAttribute("aria-label", `Choose ${who.content.textContent.trim()}`);
      cell.append(box);
    }
    return cell;
  }
}

const tables = all("table[data-view]").map((table) => new LiveTable(table));

/* One stream for all tabs: whoever has the lock follows for the others, who say what they show. */

const me = Math.random().toString(36).slice(2);
const channel = new BroadcastChannel("tr50d");
const views = () => (document.hidden ? [] : tables.map((table) => table.view));
const others = new Map();
let source = null, followed = "", leads = false;

function take(news) {
  const shown = tables.filter((table) => table.view === news.view || (news.ended && !news.view));
  // The page that comes says why it is over.
  if (news.ended && shown.length) location.reload();
  else if (shown.length) { for (const table of shown) table.apply(news); tick(); }
}

function say(what) {
  channel.postMessage({ from: me, ...what });
}

function follow() {
  if (!leads) return;
  const now = Date.now();
  for (const [id, other] of others) if (now - other.at > 15000) others.delete(id);
  const wanted = [...new Set([...views(), ...[...others.values()].flatMap((other) => other.views)])].sort();
  const address = wanted.map((view) => `view=${encodeURIComponent(view)}`).join("&");
  if (address === followed && source?.readyState !== 2) return;
  source?.close();
  source = null;
  followed = address;
  if (!address) return;
  source = new EventSource(`/events?${address}`);
  const pass = (event) => {
    const news = { ...JSON.parse(event.data), ended: event.type === "ended" };
    say({ news });
    take(news);
  };
  source.addEventListener("window", pass);
  source.addEventListener("ended", pass);
  source.onopen = source.onerror = ({ target }) => {
    mark(isOpen());
    say({ live: isOpen() });
    if (target.readyState === 2) look();
  };
}

// A stream that is refused: if the session is over, the page that comes says so.
async function look() {
  const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
  if (answer?.type === "opaqueredirect") location.reload();
}

const isOpen = () => source?.readyState === 1;

function mark(isLive) {
  document.body.classList.toggle("stale", !isLive);
  const place = $("[data-live]");
  if (place) place.textContent = isLive ? "live" : "connecting again…";
}

channel.onmessage = ({ data }) => {
  if (data.news) take(data.news);
  if ("live" in data) mark(data.live);
  if (data.views) {
    if (data.views.length) others.set(data.from, { views: data.views, at: Date.now() });
    else others.delete(data.from);
    follow();
    if (isOpen()) say({ live: true });
  }
  if (data.who) tell();
};

function tell() {
  if (leads) follow();
  else say({ views: views() });
}

if (tables.length && navigator.locks) {
  setInterval(tell, 5000);
  document.addEventListener("visibilitychange", () => { tick(); tell(); });
  addEventListener("pagehide", () => say({ views: [] }));
  tell();
  navigator.locks.request("tr50d-stream", () => {
    leads = true;
    say({ who: true });
    follow();
    return new Promise(() => {});
  });
} else if (tables.length) {
  leads = true;
  follow();
}

// What the browser has kept of a page may be another user's.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

/* Dialogs: the same pages, shown above this one. */

const NO_ANSWER = `<h1>No answer</h1>
  <p role="alert">The server can't be reached, and nobody knows whether it has done what was asked.</p>
  <p><a class="button" href="" data-close>Close</a></p>`;

function makeDialog() {
  const box = document.body.appendChild(document.createElement("dialog"));
  // The focus is back where it was: then a row that has it stays.
  box.addEventListener("close", () => { for (const table of tables) table.release(); });
  return box;
}

async function dialog(address, options) {
  const asked = fetch(address, { ...options, headers: { "X-Piece": "1" } });
  const answer = await asked.catch(() => null);
  // What was done is said on another page, or the session has ended.
  if (answer?.redirected) return location.assign(answer.url);
  const box = $("dialog") ?? makeDialog();
  box.innerHTML = answer ? await answer.text() : NO_ANSWER;
  const title = $("h1", box);
  if (title) { title.id = "dialog-title"; box.setAttribute("aria-labelledby", title.id); }
  if (!box.open) box.showModal();
  ($("input:not([type=hidden]), button, a", box) ?? box).focus();
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const link = event.target.closest?.("a");
  if (link?.hasAttribute("data-close") && link.closest("dialog")) {
    event.preventDefault();
    link.closest("dialog").close();
  } else if (link?.hasAttribute("data-dialog")) {
    event.preventDefault();
    dialog(link.href);
  } else if (link && link.closest("dialog") && link.pathname + link.search === location.pathname + location.search) {
    event.preventDefault();
    link.closest("dialog").close();
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  const data = new FormData(form, event.submitter);
  // Not the property: a field may have its name.
  const isPost = form.getAttribute("method") === "post";
  if (isPost) {
    // Sent twice, it would be done twice.
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 5000);
  }
  if (form.id === "chosen" && !isPost) {
    event.preventDefault();
    if ([...data].length) dialog(`${form.action}?${new URLSearchParams(data)}`);
  } else if (isPost && form.closest("dialog")) {
    event.preventDefault();
    dialog(form.action, { method: "post", body: new URLSearchParams(data) });
  }
});

/* Keys. */

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || $("dialog[open]")) return;
  const links = all("main tbody tr").map((row) => $("a[href]", row)).filter(Boolean);
  const at = links.indexOf(document.activeElement);
  if (event.key === "/") $(".search input")?.focus();
  else if (event.key === "?") dialog("/o?keys=1");
  else if (event.key === "j") links[at + 1]?.focus();
  else if (event.key === "k") links[Math.max(0, at - 1)]?.focus();
  else return;
  event.preventDefault();
});
