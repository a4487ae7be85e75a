// The search in the bar, by keys: `/` goes there, what is found leads on, and nothing found says so. `?` shows the
// keys.

import assert from "node:assert/strict";

import { isAccessible, script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive } from "./console.mjs";
import { OPERATOR, VIEWER, fleet } from "./server.mjs";

const inSearch = (page) => page.evaluate(() => document.activeElement.name === "q");

script(async () => {
  await fleet("seek", 10);
  const page = await at(SESSIONS, OPERATOR);
  await isLive(page);

  step("/ goes there, and is not written");
  await page.keyboard.press("/");
  assert.ok(await inSearch(page));
  await page.keyboard.type("seek-1 / ?");
  const field = page.getByRole("searchbox", { name: "Search everywhere" });
  assert.equal(await field.inputValue(), "seek-1 / ?");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await field.fill("seek-1");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/search\?q=seek-1/);
  await page.getByRole("heading", { name: /^Things/ }).waitFor();
  await isAccessible(page, "found");

  step("what is found leads on, by keys as well");
  await page.getByRole("heading", { name: "Search" }).click();
  await page.keyboard.press("j");
  assert.equal(await page.evaluate(() => document.activeElement.innerText), "seek-1");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /^seek-1 / }).waitFor();
  await page.goBack();
  const sessions = page.getByRole("region", { name: /^Sessions/ });
  await sessions.getByRole("link", { name: "seek-10", exact: true }).click();
  await page.getByText("Rights", { exact: true }).waitFor();
  assert.match(page.url(), /\/sessions\/[0-9a-f-]+$/);

  step("more of a type");
  await page.goto("/search?q=seek");
  await page.getByRole("link", { name: "All 10 of these" }).first().click();
  await page.waitForURL(/type=thing/);
  assert.equal(await page.locator("tbody tr").count(), 10);

  step("nothing");
  await page.goto("/search");
  assert.ok(await inSearch(page), "there is nothing else to do");
  await isAccessible(page, "no words");
  await page.keyboard.type("nobody-is-named-so");
  await page.keyboard.press("Enter");
  await page.getByText("Nothing is found for “nobody-is-named-so”").waitFor();
  await isAccessible(page, "nothing found");

  step("keys");
  await page.getByRole("heading", { name: "Search", exact: true }).click();
  await page.keyboard.press("?");
  const dialog = page.getByRole("dialog", { name: "Keys" });
  await dialog.waitFor();
  for (const key of ["/", "j", "?"]) await page.keyboard.press(key);
  assert.ok(await page.evaluate(() => document.activeElement.closest("dialog")), "it keeps the focus");
  await isAccessible(page, "keys");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });

  step("who may list nothing finds nothing");
  const viewer = await at("/search?q=seek-1", VIEWER);
  await until("it says so", () => viewer.getByText("Nothing is found").isVisible());

  step("without JavaScript");
  const plain = await at("/me", OPERATOR, { javaScriptEnabled: false });
  await plain.getByRole("searchbox", { name: "Search everywhere" }).fill("seek-2");
  await plain.keyboard.press("Enter");
  await plain.getByRole("link", { name: "seek-2", exact: true }).first().click();
  await plain.getByRole("heading", { name: /^seek-2 / }).waitFor();
  await plain.goto("/o?keys=1");
  await plain.getByRole("heading", { name: "Keys" }).waitFor();
});
