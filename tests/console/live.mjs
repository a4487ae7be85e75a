// A list that stays as it is on the server, without a reload: rows appear and leave, for a filter that is in
// the link only those that fit.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive, listed, lists, row } from "./console.mjs";
import { OPERATOR, device, fleet } from "./server.mjs";

script(async () => {
  const [first] = await fleet("live", 2);
  const path = `${SESSIONS}?kind=application&sort=whoAmI`;
  const page = await at(path, OPERATOR);
  const filtered = await page.context().newPage();
  await filtered.goto(`${SESSIONS}?query=other`);
  await isLive(page);
  await isLive(filtered);
  const counts = async (count) => {
    await page.getByRole("navigation", { name: "Pages" }).getByText(`${count} sessions`).waitFor();
    await page.getByRole("link", { name: `End all ${count} that match` }).waitFor();
    await page.locator(`table[aria-rowcount="${count + 1}"]`).waitFor();
  };
  const isSame = () => page.evaluate(() => window.isSame);
  await page.evaluate(() => (window.isSame = true));
  await lists(page, ["live-1", "live-2"]);
  await lists(filtered, []);

  step("rows appear");
  const other = await device("other-1");
  await device("live-3");
  await lists(page, ["live-1", "live-2", "live-3", "other-1"]);
  assert.deepEqual(await listed(page), ["live-1", "live-2", "live-3", "other-1"], "sorted");
  await lists(filtered, ["other-1"]);
  await counts(4);

  step("cells change");
  await other.run("diag.ping");
  await until("a command is counted", async () => {
    const cells = await row(page, "other-1").locator("[data-cell=commands]").allInnerTexts();
    return cells[0] !== "0";
  });

  step("rows leave");
  await first.leave();
  await other.leave();
  await lists(page, ["live-2", "live-3"]);
  await lists(filtered, []);
  await counts(2);
  assert.ok(await isSame(), "it was not loaded again");

  step("one's own comes into view, and is marked");
  const newer = await fleet("newer", 61);
  const all = await page.context().newPage();
  await all.goto(SESSIONS);
  await isLive(all);
  assert.equal(await row(all, OPERATOR.username).count(), 0);
  await Promise.all(newer.map(({ leave }) => leave()));
  await until("it is there", async () =>
    /you/.test(await row(all, OPERATOR.username).innerText({ timeout: 500 })),
  );
  await lists(all, [OPERATOR.username, "live-2", "live-3"]);
  await all.close();

  step("columns that were chosen are live");
  const chosen = await page.context().newPage();
  await chosen.goto(`${SESSIONS}?kind=application&columns=who,app,outbox`);
  await isLive(chosen);
  const late = await device("late-1");
  await row(chosen, "late-1").locator("[data-cell=app]").getByText("demo-app").waitFor();
  await row(chosen, "late-1").locator("[data-cell=outbox]").getByText("0", { exact: true }).waitFor();
  assert.equal(await row(chosen, "late-1").locator("[data-cell]").count(), 4);
  await late.leave();
  await row(chosen, "late-1").waitFor({ state: "detached" });
  await chosen.close();

  step("ended ones are as visible");
  await page.getByLabel("Who, application or address").fill("live-1");
  await page.getByRole("combobox", { name: "State" }).selectOption("ended");
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL(/state=ended/);
  await lists(page, ["live-1"]);
  assert.match(await row(page, "live-1").innerText(), /connection lost|logged out/);
  await page.goBack();
  await lists(page, ["live-2", "live-3"]);
});
