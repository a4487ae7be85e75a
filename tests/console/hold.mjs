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
});
