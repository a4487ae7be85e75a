// Every screen can be read by everybody, with what is hard to show on it; the first is small.

import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";

import { isAccessible, profile, provokes, script, step, until } from "./browser.mjs";
import { SESSIONS, at, listed } from "./console.mjs";
import { wire } from "./figures.mjs";
import { OPERATOR, device, fleet, logIn } from "./server.mjs";

const FIRST_BYTES_MAX = 40_000;
const FIRST_REQUESTS_MAX = 3;
/** Compressed. */
const SCRIPT_BYTES_MAX = 6_000;

/** Their names, and where they are. */
const SCREENS = [
  ["sessions", SESSIONS],
  ["ended sessions", `${SESSIONS}?state=all`],
  ["no sessions", `${SESSIONS}?query=nobody-is-named-so`],
  ["other columns", `${SESSIONS}?columns=who,seen,org,app,clientId,mqtt,tls,with,keepAlive,bytesIn,outbox,starts`],
  ["as it was", `${SESSIONS}?asOf=2026-01-01T00:00`],
  ["end many", `${SESSIONS}/end?kind=application`],
  ["overview", "/o/basic-org/"],
  ["refused logins", "/o/basic-org/logins"],
  ["no refused logins", "/o/basic-org/logins?by=name&name=nobody-is-named-so"],
  ["events", "/o/basic-org/events"],
  ["organisations", "/o"],
  ["not found", "/o/basic-org/no-such-page"],
  ["no such organisation", "/o/no-such/sessions"],
];

/** Names that are hard to show. */
const NAMES = [
  "<img src=x onerror=missing()>",
  "\u202eright-to-left\u202c",
  "long-".repeat(24),
  "名前-имя-اسم",
];

script(async () => {
  await fleet("screen", 65);
  const hard = [];
  for (const name of NAMES) hard.push(await device(name));
  await hard[1].leave();
  for (let tries = 0; tries < 3; tries += 1) {
    await assert.rejects(logIn({ ...OPERATOR, password: "wrong" }));
  }
  const page = await at(SESSIONS, OPERATOR);

  step("the first screen is small");
  const fresh = await profile({ storageState: await page.context().storageState() });
  const first = await fresh.newPage();
  const loaded = await wire(first);
  await first.goto(SESSIONS, { waitUntil: "load" });
  assert.equal((await listed(first)).length, 60);
  await until("all is loaded", () => loaded().of.length >= 3 && loaded().of.every((one) => !/ 0$/.test(one)));
  const { requests, bytes, of } = loaded();
  assert.ok(requests <= FIRST_REQUESTS_MAX && bytes <= FIRST_BYTES_MAX, `${bytes} bytes: ${of}`);
  console.log(`- ${requests} requests, ${bytes} bytes`);

  const source = await (await page.request.get("/console.js")).body();
  assert.ok(gzipSync(source).length <= SCRIPT_BYTES_MAX, `${gzipSync(source).length} bytes of script`);

  // Two of these are pages that say what is not there.
  provokes(/status of 40[34]/);
  for (const [name, path] of SCREENS) {
    step(name);
    await page.goto(path);
    await isAccessible(page, name);
  }
  step("keys");
  await page.goto(SESSIONS);
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await isAccessible(page, "keys");
  step("one session");
  const [reference] = await first.locator("tr[data-id] input[type=checkbox]").evaluateAll((boxes) =>
    boxes.map((box) => box.value),
  );
  for (const path of [`${SESSIONS}/${reference}`, `${SESSIONS}/end?ref=${reference}`]) {
    await page.goto(path);
    await isAccessible(page, path);
  }
});
