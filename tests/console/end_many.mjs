// Ends from the live list, in a dialog: one; all that match a filter, counted before, typed when above ten. The
// caller's own session is never among them.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive, listed, lists, row } from "./console.mjs";
import { OPERATOR, fleet } from "./server.mjs";

script(async () => {
  const fleets = [await fleet("few", 3), await fleet("many", 12)];
  const page = await at(`${SESSIONS}?sort=whoAmI`, OPERATOR);
  await isLive(page);
  const dialog = page.getByRole("dialog");

  step("none of one's own");
  const own = row(page, OPERATOR.username);
  assert.match(await own.innerText(), /you/);
  assert.equal(await own.getByRole("checkbox").count(), 0);
  assert.equal(await own.getByRole("link", { name: /^End/ }).count(), 0);

  step("one, and not at second thoughts");
  await row(page, "few-1").getByRole("link", { name: /^End/ }).click();
  assert.match(await dialog.innerText(), /few-1[^]*tcp[^]*127\.0\.0\.1[^]*come back/);
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await row(page, "few-1").waitFor();
  await row(page, "few-1").getByRole("link", { name: /^End/ }).click();
  await dialog.getByRole("button", { name: "End this session" }).click();
  await fleets[0][0].left;
  await dialog.getByRole("heading", { name: "Ended 1 session" }).waitFor();
  await until("its end is seen", async () =>
    /gone|over/.test((await row(page, "few-1").getAttribute("class")) ?? ""),
  );
  await dialog.getByRole("link", { name: "Back to the list" }).click();
  await dialog.waitFor({ state: "hidden" });
  await page.getByRole("heading", { name: "Sessions" }).click();
  await row(page, "few-1").waitFor({ state: "detached" });

  step("all that match, to ten without typing");
  await page.goto(`${SESSIONS}?query=few-`);
  await lists(page, ["few-2", "few-3"]);
  await page.getByRole("link", { name: /^End all 2/ }).click();
  assert.equal(await dialog.getByRole("textbox").count(), 0);
  await dialog.getByRole("button", { name: "End 2" }).click();
  await Promise.all(fleets[0].map(({ left }) => left));
  await dialog.getByRole("link", { name: "Back to the list" }).click();
  await page.mouse.move(1, 1);
  await lists(page, []);
  assert.match(page.url(), /query=few-/, "the filter stays");

  step("more than ten, after their number was typed");
  await page.goto(`${SESSIONS}?sort=whoAmI`);
  await page.getByRole("link", { name: /^End all/ }).click();
  const number = dialog.getByLabel("Type 12");
  await number.fill("11");
  await dialog.getByRole("button", { name: "End 12" }).click();
  await until("11 is refused", () => number.evaluate((field) => !field.validity.valid));
  assert.equal((await listed(page)).filter((name) => name.startsWith("many-")).length, 12);
  await number.fill("12");
  await number.press("Enter");
  await Promise.all(fleets[1].map(({ left }) => left));
  await dialog.getByRole("link", { name: "Back to the list" }).click();
  // The pointer is above a row now, which holds the list.
  await page.mouse.move(1, 1);
  await lists(page, [OPERATOR.username]);
});
