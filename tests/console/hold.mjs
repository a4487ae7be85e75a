// A live list holds still while a row has pointer, focus or choice: the order stays, values go on, and what is new
// is counted.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive, listed, lists, row } from "./console.mjs";
import { OPERATOR, device, fleet } from "./server.mjs";

script(async () => {
  const [one, two, three] = await fleet("hold", 3);
  // The newest are above: what comes would move all others.
  const page = await at(`${SESSIONS}?kind=application&sort=-startTime`, OPERATOR);
  await isLive(page);
  let shown = ["hold-3", "hold-2", "hold-1"];
  let added = 0;

  /** While the list is held, somebody comes and somebody works: only the latter is seen. */
  async function holds(what) {
    step(what);
    added += 1;
    const name = `new-${added}`;
    await device(name);
    const fresh = page.getByRole("status").getByRole("button", { name: /^\+1 new/ });
    await fresh.waitFor();
    const commands = row(page, "hold-2").locator("[data-cell=commands]");
    const before = await commands.innerText();
    await two.run("diag.ping");
    await until("a value goes on", async () => (await commands.innerText()) !== before);
    assert.deepEqual(await listed(page), shown, "the order stays");
    shown = [name, ...shown];
    return fresh;
  }

  async function goesOn(fresh) {
    await fresh.waitFor({ state: "hidden" });
    assert.deepEqual(await listed(page), shown);
  }

  assert.deepEqual(await listed(page), shown);
  await row(page, "hold-2").hover();
  let fresh = await holds("pointer");
  await page.mouse.move(1, 1);
  await goesOn(fresh);

  await row(page, "hold-2").getByRole("link").first().focus();
  fresh = await holds("focus");
  await page.evaluate(() => document.activeElement.blur());
  await goesOn(fresh);

  await row(page, "hold-1").getByRole("checkbox").check();
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(1, 1);
  fresh = await holds("choice");
  await row(page, "hold-1").getByRole("checkbox").uncheck();
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(1, 1);
  await goesOn(fresh);

  await row(page, "hold-2").getByRole("link").first().focus();
  fresh = await holds("shown at once when one wants them");
  await fresh.click();
  await goesOn(fresh);

  step("who leaves meanwhile stays in place");
  await row(page, "hold-2").hover();
  await one.leave();
  await until("it is marked", async () => {
    const classes = await row(page, "hold-1").getAttribute("class");
    return /over|gone/.test(classes ?? "");
  });
  assert.deepEqual(await listed(page), shown);
  await page.mouse.move(1, 1);
  await lists(page, shown.filter((name) => name !== "hold-1"));
  await three.leave();
  await lists(page, shown.filter((name) => !["hold-1", "hold-3"].includes(name)));

  step("more are counted than are shown, and nobody who only made room is marked");
  const crowd = await fleet("crowd", 70);
  await page.reload();
  await isLive(page);
  await row(page, "crowd-60").hover();
  fresh = page.getByRole("status").getByRole("button");
  await fleet("more", 40);
  await fresh.filter({ hasText: /^\+40 new — show$/ }).waitFor();
  await fleet("most", 40);
  await fresh.filter({ hasText: /^\+80 new — show$/ }).waitFor();
  assert.equal((await listed(page))[0], "crowd-70");
  assert.equal(await page.locator("tr.gone").count(), 0);
  await page.mouse.move(1, 1);
  await until("the newest are shown", async () => (await listed(page))[0] === "most-40");
  await fresh.waitFor({ state: "hidden" });
  await row(page, "most-30").hover();
  await crowd[0].leave();
  const [late] = await fleet("late", 1);
  await fresh.filter({ hasText: /^\+1 new — show$/ }).waitFor();
  await late.leave();

  step("a list of which all rows are others each time holds by itself");
  await page.mouse.move(1, 1);
  let turn = 0;
  let isCalm = false;
  await page.route("**/events?*", (route) => {
    const view = new URL(route.request().url()).searchParams.get("view");
    if (!isCalm) turn += 1;
    const order = Array.from({ length: 60 }, (_, index) => `turn-${turn}-${index}`);
    const cells = Object.fromEntries(order.map((id) => [id, { who: `<bdi>${id}</bdi>` }]));
    const news = { view, total: "100,000 sessions", rows: 100_001, cells, over: [], order };
    const body = `retry: 300\nevent: window\ndata: ${JSON.stringify(news)}\n\n`;
    return route.fulfill({ contentType: "text/event-stream", body });
  });
  await page.reload();
  await fresh.filter({ hasText: /^\+\d{3,} or more new — show$/ }).waitFor();
  const [held] = await listed(page);
  assert.match(held, /^turn-\d+-0$/);
  const count = await fresh.innerText();
  await until("it counts up", async () => (await fresh.innerText()) !== count);
  assert.equal((await listed(page))[0], held, "the rows stay");
  await page.getByText("100,000 sessions").first().waitFor();
  await fresh.click();
  await until("the newest are shown", async () => (await listed(page))[0] !== held);
  await fresh.filter({ hasText: / or more new — show$/ }).waitFor();
  isCalm = true;
  await until("it goes on when it is calm", async () => (await listed(page))[0] === `turn-${turn}-0`);
  await fresh.waitFor({ state: "hidden" });
});
