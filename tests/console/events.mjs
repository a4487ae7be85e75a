// What happened, newest first: what was before one came is there, what happens comes live, by type and thing, and
// waits while one has paused.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { at, isLive } from "./console.mjs";
import { OPERATOR, device, fleet } from "./server.mjs";

const EVENTS = "/o/basic-org/events";

/** Type and thing of each event, from top to bottom. */
function told(page) {
  return page.locator("tr[data-id]").evaluateAll((rows) => {
    const text = (row, cell) => row.querySelector(`[data-cell=${cell}]`).innerText.trim();
    return rows.map((row) => `${text(row, "type")} ${text(row, "who")}`);
  });
}

function top(page, event) {
  return until(`${event} on top`, async () => {
    const events = await told(page);
    assert.equal(events[0], event, `${events}`);
    return true;
  });
}

script(async () => {
  const first = await device("event-1");
  const page = await at(`${EVENTS}?types=session.*`, OPERATOR);
  await isLive(page);
  assert.ok((await told(page)).includes("session.started event-1"), `${await told(page)}`);

  step("what happens comes live");
  await first.leave();
  await top(page, "session.ended event-1");
  await device("event-2");
  await top(page, "session.started event-2");

  step("by thing");
  await page.getByLabel("Thing", { exact: true }).fill("event-1");
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL(/key=event-1/);
  await isLive(page);
  const events = await told(page);
  assert.ok(events.length >= 2 && events.every((event) => event.endsWith(" event-1")), `${events}`);

  step("a pause");
  await page.goto(`${EVENTS}?types=session.*`);
  await isLive(page);
  await page.getByRole("button", { name: "Pause" }).click();
  await device("event-3");
  await page.getByRole("button", { name: "+1 new" }).waitFor();
  await device("event-4");
  await page.getByRole("button", { name: "+2 new" }).waitFor();
  assert.equal((await told(page))[0], "session.started event-2");
  await page.getByRole("button", { name: /^Pause|^Go on/ }).click();
  await page.mouse.move(1, 1);
  await top(page, "session.started event-4");

  step("what was there stays below what comes");
  await page.goto(`${EVENTS}?types=session.*`);
  await isLive(page);
  const oldest = (await told(page)).at(-1);
  for (let batch = 1; batch <= 6; batch += 1) {
    const devices = await fleet(`batch-${batch}`, 10);
    for (const one of devices) await one.leave();
    await top(page, `session.ended batch-${batch}-10`);
  }
  const all = await told(page);
  assert.ok(all.length > 120, `${all.length} rows`);
  assert.equal(all.at(-1), oldest);
  const rows = page.locator("tr[data-id]");
  const indices = await rows.evaluateAll((rows) => rows.map((row) => row.getAttribute("aria-rowindex")));
  assert.deepEqual(indices, indices.map((_, index) => `${index + 2}`));
  const numbers = await rows.evaluateAll((rows) => rows.map((row) => +row.dataset.id));
  assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => b - a));

  step("by address");
  await page.getByLabel("Address begins with").fill("10.");
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL(/remoteAddr=10\./);
  assert.deepEqual(await told(page), []);
  await page.getByText("Nothing happened").waitFor();
  await page.goto(`${EVENTS}?types=session.*`);

  step("by type");
  const url = new URL(page.url());
  await page.getByLabel("refused logins").check();
  await page.getByLabel("sessions", { exact: true }).uncheck();
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL((found) => found.search !== url.search);
  assert.ok((await told(page)).every((event) => event.startsWith("login.")), `${await told(page)}`);
});
