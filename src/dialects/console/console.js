// What is live, dialogs, keys. All else works without it.

const number = (value) => value.toLocaleString("en");
const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
// What is the same already costs nothing.
const put = (element, name, value) => element.getAttribute(name) === value || element.setAttribute(name, value);

/* Times, as the server writes them, kept true. */

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

// How far this machine's clock is behind the server's.
const ahead = Date.parse(document.body.dataset.now) - Date.now();

function age(time) {
  const text = span(Date.now() + ahead - Date.parse(time.dateTime));
  if (time.textContent !== text) time.textContent = text;
}

const ages = (root) => all("time:not(.clock)", root).forEach(age);

const template = document.createElement("template");
function made(html) {
  template.innerHTML = html;
  return template.content;
}

/* Gives an element the content of another. What is there stays, with its focus, and what was opened stays open. */

const idOf = (node) => node.dataset?.id;

function become(shown, wanted) {
  const now = [...wanted.childNodes];
  const ids = now.map(idOf);
  for (const node of [...shown.childNodes]) if (!ids.includes(idOf(node))) node.remove();
  let node = shown.firstChild;
  for (const like of now) {
    if (node?.nodeName !== like.nodeName || idOf(node) !== idOf(like)) {
      shown.insertBefore(like, node);
      ages(shown);
      continue;
    }
    if (like.nodeType === 3) {
      if (node.data !== like.data) node.data = like.data;
    } else {
      const names = like.getAttributeNames();
      for (const name of names) put(node, name, like.getAttribute(name));
      for (const name of node.getAttributeNames()) {
        if (name !== "open" && !names.includes(name)) node.removeAttribute(name);
      }
      if (node.localName !== "time" || node.className) become(node, like);
      else age(node);
    }
    node = node.nextSibling;
  }
  while (node) [node] = [node.nextSibling, node.remove()];
}

const TORRENT_MS = 10000;
const CAME_MAX = 9999;

/* A live table. While a row has focus, choice, pointer or a dialog, only values go on. */

class LiveTable {
  constructor(table) {
    this.table = table;
    this.body = $("tbody", table);
    this.view = table.dataset.view;
    this.heads = all("thead th", table);
    this.places = new Map(this.heads.map((cell, index) => [cell.dataset.cell, index]));
    this.rows = new Map(all("tr[data-id]", this.body).map((row) => [row.dataset.id, row]));
    this.first = +(this.body.rows[0]?.getAttribute("aria-rowindex") ?? 2);
    this.totals = all("[data-total]");
    this.ends = $("[data-own]");
    this.fresh = $("[data-fresh]");
    this.older = $("[data-older]");
    this.kept = +table.dataset.kept || 0;
    this.pending = null;
    this.paused = false;
    // The server's rows, and those that came since the list holds.
    this.latest = new Set(this.rows.keys());
    this.came = new Set();
    this.isMore = false;
    this.otherAt = this.torrentAt = 0;
    for (const type of ["pointerleave", "focusout", "change"]) {
      table.addEventListener(type, () => setTimeout(() => this.release()));
    }
    this.fresh?.addEventListener("click", () => this.show());
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

  isHeld() {
    return this.paused || this.table.matches(":hover") || this.table.contains(document.activeElement)
      || !!$("input:checked", this.body) || !!$("dialog[open]") || Date.now() - this.torrentAt < TORRENT_MS;
  }

  // Whether there are rows behind those that the list has.
  hasMore(order) {
    const rows = +this.table.getAttribute("aria-rowcount");
    return rows < 0 || this.first + order.length - 1 < rows;
  }

  // What moves faster than anybody reads holds by itself.
  note(order) {
    const others = order.filter((id) => !this.latest.has(id)).length;
    const isTorrent = others > order.length / 2 && this.hasMore(order);
    const [before, now] = [this.otherAt, Date.now()];
    this.latest = new Set(order);
    this.otherAt = isTorrent ? now : 0;
    this.torrentAt = isTorrent && now - before < TORRENT_MS ? now : 0;
    // Some may have come and gone in between.
    if (isTorrent && others === order.length) this.isMore = true;
  }

  apply(news) {
    const held = this.pending?.cells ?? {};
    for (const [id, cells] of Object.entries(news.cells)) {
      const row = this.rows.get(id);
      if (row) this.fill(row, cells);
      held[id] = { ...held[id], ...cells };
    }
    for (const id of news.over) this.rows.get(id)?.classList.add("over");
    if (news.total) for (const place of this.totals) place.textContent = news.total;
    if (news.rows) this.table.setAttribute("aria-rowcount", news.rows);
    if (news.rows > 0 && this.ends) this.ends.textContent = number(news.rows - 1 - this.ends.dataset.own);
    if (news.order) {
      const { order, over } = news;
      // What has left the list comes whole if it comes again.
      const cells = Object.fromEntries(order.map((id) => [id, held[id]]));
      this.pending = { order, cells, over };
      this.note(order);
      if (!this.isHeld()) return this.show();
      // The last ones may only have made room for others.
      let isWithin = !this.hasMore(order);
      if (isWithin) this.came.clear();
      for (const [id, row] of [...this.rows].reverse()) {
        const stays = this.latest.has(id);
        isWithin ||= stays;
        row.classList.toggle("gone", isWithin && !stays);
      }
      for (const id of order) if (!this.rows.has(id) && this.came.size < CAME_MAX) this.came.add(id);
      this.say(this.came.size);
    }
  }

  fill(row, cells) {
    for (const [name, html] of Object.entries(cells)) {
      const cell = row.cells[this.places.get(name)];
      if (!cell || cell.html === html) continue;
      cell.html = html;
      become(cell, made(html));
    }
  }

  say(count) {
    if (!this.fresh) return;
    this.fresh.hidden = count === 0;
    const more = this.isMore || count === CAME_MAX ? " or more" : "";
    const text = count ? `+${number(count)}${more} new — show` : "";
    if (this.fresh.textContent !== text) this.fresh.textContent = text;
  }

  release() {
    if (this.pending && !this.isHeld()) this.show();
  }

  show() {
    if (!this.pending) return;
    const { order, cells, over } = this.pending;
    this.pending = null;
    this.came.clear();
    this.isMore = false;
    this.say(0);
    const [before, ended, ids] = [this.rows, new Set(over), order.concat(this.below(order))];
    this.rows = new Map();
    for (const id of ids) if (before.has(id)) this.rows.set(id, before.get(id));
    // Rows that are gone become those that are new: then hardly anything is laid out anew.
    const gone = [...before].filter(([id]) => !this.rows.has(id)).map(([, row]) => row);
    ids.forEach((id, index) => {
      let row = this.rows.get(id);
      if (!row) {
        row = gone.shift() ?? this.blank();
        this.become(row, id, cells[id] ?? {});
        this.rows.set(id, row);
      }
      row.classList.remove("gone");
      row.classList.toggle("over", ended.has(id));
      put(row, "aria-rowindex", `${this.first + index}`);
      const there = this.body.rows[index];
      if (there !== row) this.body.insertBefore(row, there ?? null);
    });
    for (const row of gone) row.remove();
    const nothing = $(".empty");
    if (nothing) nothing.hidden = order.length > 0;
    if (!this.kept || !this.older) return;
    const older = new URL(this.older.href);
    older.searchParams.delete("iterator");
    older.searchParams.set("before", ids.at(-1));
    this.older.href = older;
  }

  // Rows of a log stay below the others, if none between is missing.
  below(order) {
    if (!order.some((id) => this.rows.has(id))) return [];
    const older = [...this.rows.keys()].filter((id) => +id < +order.at(-1));
    return older.slice(0, Math.max(0, this.kept - order.length));
  }

  blank() {
    const row = document.createElement("tr");
    for (const { dataset, className } of this.heads) {
      const cell = row.insertCell();
      cell.className = className;
      if (dataset.cell) cell.dataset.cell = dataset.cell;
    }
    return row;
  }

  become(row, id, cells) {
    row.dataset.id = id;
    this.fill(row, cells);
    const choice = $("td.choose", row);
    if (!choice) return;
    if (!cells.act) return choice.replaceChildren();
    const box = choice.firstChild ?? choice.appendChild(document.createElement("input"));
    Object.assign(box, { type: "checkbox", name: "ref", value: id, checked: false });
    put(box, "form", "chosen");
    put(box, "aria-label", `Choose ${$("td[data-cell=who]", row).textContent.trim()}`);
  }
}

/* Parts of a page that are no list. */

const liveParts = (place) => ({
  view: place.dataset.view,
  release() {},
  apply({ cells }) {
    for (const [name, { html }] of Object.entries(cells)) {
      const part = $(`[data-part=${name}]`, place);
      if (part) become(part, made(html));
    }
  },
});

const lives = all("[data-view]").map((place) => (place.matches("table") ? new LiveTable(place) : liveParts(place)));

/* One stream for all tabs: whoever has the lock follows for the others. */

const me = Math.random().toString(36).slice(2);
const channel = new BroadcastChannel("tr50d");
const views = () => (document.hidden ? [] : lives.map((live) => live.view));
const others = new Map();
let source = null, followed = "", leads = false;

// What has come and is not shown: all of a second at once, with the times that go on.
let waiting = [];
let shownAt = 0;

function take(news) {
  const shown = lives.filter((live) => live.view === news.view || (news.ended && !news.view));
  // The page that comes says why it is over.
  if (news.ended && shown.length) return location.reload();
  for (const live of shown) waiting.push([live, news]);
  if (Date.now() - shownAt > 1000) show();
}

function show() {
  // A link that is pressed stays what it is.
  if (!waiting.length || $("a:active")) return;
  shownAt = Date.now();
  for (const [live, news] of waiting) live.apply(news);
  waiting = [];
}

function tick() {
  show();
  for (const live of lives) live.release();
  if (!document.hidden) ages();
}
setInterval(tick, 1000);

const say = (what) => channel.postMessage({ from: me, ...what });

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
    if (others.size || news.ended) say({ news });
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

// A stream that is refused: the page that comes says why.
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

const tell = () => (leads ? follow() : say({ views: views() }));

if (lives.length && navigator.locks) {
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
} else if (lives.length) {
  leads = true;
  follow();
}

// What the browser has kept may be another user's.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

/* Dialogs: the same pages, shown above this one. */

const NO_ANSWER = `<h1>No answer</h1>
  <p role="alert">The server can't be reached, and nobody knows whether it has done what was asked.</p>
  <p><a class="button" href="" data-close>Close</a></p>`;

function makeDialog() {
  const box = document.body.appendChild(document.createElement("dialog"));
  // The focus is back where it was: then a row that has it stays.
  box.addEventListener("close", () => { for (const live of lives) live.release(); });
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
  const box = link?.closest("dialog");
  const isHere = () => link.pathname + link.search === location.pathname + location.search;
  if (box && (link.matches("[data-close]") || isHere())) box.close();
  else if (link?.matches("[data-dialog]")) dialog(link.href);
  else return;
  event.preventDefault();
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

/* What is found while one types. */

let typing = 0;
document.addEventListener("input", ({ target }) => {
  const form = target.closest("form[data-typed]");
  if (!form) return;
  clearTimeout(typing);
  typing = setTimeout(async () => {
    const words = target.value;
    const asked = fetch(`${form.action}?${new URLSearchParams(new FormData(form))}`, { headers: { "X-Piece": "1" } });
    const answer = await asked.catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    const found = $("[data-found]", made(await answer.text()));
    // A later one may be quicker.
    if (words === target.value) form.nextElementSibling.replaceWith(found);
  }, 150);
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
