// The server restarts while a page watches: the page says so, comes back by itself, and shows nobody twice.

import assert from "node:assert/strict";

import { provokes, script, step } from "./browser.mjs";
import { SESSIONS, at, isLive, listed, lists } from "./console.mjs";
import { OPERATOR, device, fleet, ordered } from "./server.mjs";

script(async () => {
  const before = await fleet("before", 2);
  const page = await at(`${SESSIONS}?kind=application&sort=whoAmI`, OPERATOR);
  await isLive(page);
  await lists(page, ["before-1", "before-2"]);
  await page.evaluate(() => (window.isSame = true));

  step("it restarts");
  // The stream breaks off, and nobody answers for a while.
  provokes(/ERR_(CONNECTION|INCOMPLETE|EMPTY|NETWORK)/);
  await ordered("restart");
  await Promise.all(before.map(({ left }) => left));
  await fleet("before", 2);
  await fleet("after", 1);
  await lists(page, ["after-1", "before-1", "before-2"]);
  await isLive(page);

  step("nobody is there twice");
  const ids = await page.locator("tr[data-id]").evaluateAll((rows) => rows.map((row) => row.dataset.id));
  assert.equal(new Set(ids).size, 3);
  assert.ok(await page.evaluate(() => window.isSame), "it was not loaded again");
  await device("after-2");
  await lists(page, ["after-1", "after-2", "before-1", "before-2"]);
  const shown = await listed(page);
  await page.reload();
  assert.deepEqual(await listed(page), shown);
});
