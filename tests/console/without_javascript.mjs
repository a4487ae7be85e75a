// Without JavaScript every flow works by links and forms: filter, sort, columns, pages, end one, those chosen, all
// that match, logout. What nobody filled in is in no address.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, asksForLogin, at, listed, lists, row } from "./console.mjs";
import { OPERATOR, fleet } from "./server.mjs";

const path = `${SESSIONS}?kind=application&sort=whoAmI`;

script(async () => {
  const fleets = [await fleet("a", 3), await fleet("b", 12)];
  const page = await at(path, OPERATOR, { javaScriptEnabled: false });
  assert.equal((await listed(page)).length, 15);

  step("filter and sort");
  await page.getByLabel("Who, application or address").fill("a-");
  await page.getByRole("button", { name: "Show" }).click();
  await lists(page, ["a-1", "a-2", "a-3"]);
  await page.getByRole("link", { name: "Who" }).click();
  assert.deepEqual(await listed(page), ["a-3", "a-2", "a-1"]);

  const query = () => new URL(page.url()).search;
  assert.equal(query(), "?query=a-&kind=application&sort=-whoAmI");

  step("columns");
  const heads = async () => {
    // The new page has its address before it has its table.
    await page.waitForLoadState("domcontentloaded");
    return page.locator("thead [data-cell]").evaluateAll((cells) => cells.map((cell) => cell.dataset.cell));
  };
  const choose = async (...labels) => {
    await page.locator("summary", { hasText: "Columns" }).click();
    for (const label of labels) await page.getByLabel(label, { exact: true }).click();
    await page.getByRole("button", { name: "Show" }).click();
  };
  await choose("Kind", "From", "Since", "Idle", "State", "Keep-alive");
  assert.equal(query(), "?query=a-&kind=application&sort=-whoAmI&columns=who,protocol,commands,keepAlive");
  assert.deepEqual(await heads(), ["who", "protocol", "commands", "keepAlive", "act"]);
  await page.getByRole("link", { name: "Who" }).click();
  assert.deepEqual(await listed(page), ["a-1", "a-2", "a-3"]);
  assert.deepEqual(await heads(), ["who", "protocol", "commands", "keepAlive", "act"]);
  await choose("Kind", "From", "Since", "Idle", "State", "Keep-alive");
  assert.equal(query(), "?query=a-&kind=application&sort=whoAmI");

  step("one is ended");
  await row(page, "a-2").getByRole("link", { name: /^End/ }).click();
  await page.getByRole("heading", { name: "End this session?" }).waitFor();
  assert.match(await page.locator("main").innerText(), /a-2[^]*tcp[^]*come back/);
  await page.getByRole("button", { name: "End this session" }).click();
  await page.getByRole("heading", { name: "Ended 1 session" }).waitFor();
  await fleets[0][1].left;

  step("those chosen");
  await page.goto(path);
  await row(page, "a-1").getByRole("checkbox").check();
  await row(page, "a-3").getByRole("checkbox").check();
  await page.getByRole("button", { name: "End those chosen" }).click();
  await page.getByRole("heading", { name: "End 2 sessions?" }).waitFor();
  await page.getByRole("button", { name: "End 2 sessions" }).click();
  await page.getByRole("heading", { name: "Ended 2 sessions" }).waitFor();
  await Promise.all([fleets[0][0].left, fleets[0][2].left]);

  step("all that match, after their number was typed");
  await page.goto(path);
  await page.getByRole("link", { name: /^End all 12/ }).click();
  await page.getByLabel("Type 12").fill("12");
  await page.getByRole("button", { name: "End 12" }).click();
  await page.getByRole("heading", { name: "Ended 12 sessions" }).waitFor();
  await Promise.all(fleets[1].map(({ left }) => left));

  step("pages");
  await fleet("page", 65);
  await page.goto(path);
  await page.getByRole("link", { name: "Next" }).click();
  assert.equal((await listed(page)).length, 5);
  await page.getByRole("link", { name: "Previous" }).click();
  assert.equal((await listed(page)).length, 60);

  step("a view is kept");
  const views = page.locator("details").filter({ hasText: "Views" });
  await page.goto(`${path}&query=page-6`);
  await views.locator("summary").click();
  await page.getByLabel("Keep this view as").fill("sixties");
  await page.getByRole("button", { name: "Keep" }).click();
  await page.goto(SESSIONS);
  await views.locator("summary").click();
  await page.getByRole("link", { name: "sixties" }).click();
  await lists(page, [60, 61, 62, 63, 64, 65, 6].map((number) => `page-${number}`));
  await views.locator("summary").click();
  await page.getByRole("button", { name: "Forget sixties" }).click();
  await page.goto(SESSIONS);
  await views.locator("summary").click();
  await page.getByText("None is kept yet").waitFor();

  step("nothing that fits");
  await page.goto(`${path}&query=nobody-is-named-so`);
  await page.getByText("No sessions").waitFor();
  await page.getByRole("link", { name: "Show all" }).click();
  await until("all are shown", async () => (await listed(page)).length === 60);

  step("logout");
  await page.getByText(OPERATOR.username, { exact: true }).first().click();
  await page.getByRole("button", { name: "Log out" }).click();
  await asksForLogin(page);
});
