// What everybody has, also who may list nothing: where else one is logged in, the second factor.

import assert from "node:assert/strict";

import { profile, provokes, script, step } from "./browser.mjs";
import { at, fillLogin } from "./console.mjs";
import { VIEWER, code } from "./server.mjs";

script(async () => {
  step("a second factor is set up");
  const page = await at("/me", VIEWER);
  await page.getByText("Set it up", { exact: true }).click();
  await page.getByLabel("Your password").fill(VIEWER.password);
  await page.getByRole("button", { name: "Show the secret" }).click();
  const secret = (await page.locator(".secret").innerText()).replaceAll(/\s/g, "");
  assert.match(secret, /^[A-Z2-7]{16,}$/);
  await page.getByRole("img", { name: /QR/ }).waitFor();
  await page.getByLabel("Six digits").fill(code(secret));
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByRole("heading", { name: "The second factor is on" }).waitFor();
  assert.ok((await page.locator(".codes li").count()) >= 8);

  step("logins ask for it");
  const elsewhere = await (await profile()).newPage();
  await elsewhere.goto("/login?next=/me");
  provokes(/status of 40[13]/);
  await fillLogin(elsewhere, VIEWER);
  await elsewhere.getByLabel("Code of your second factor").fill(code(secret, 1));
  await elsewhere.keyboard.press("Enter");
  await elsewhere.getByRole("heading", { name: "My sessions" }).waitFor();

  step("the other one ends");
  await page.goto("/me");
  assert.equal(await page.locator("tr[data-id]").count(), 2);
  await page.getByRole("link", { name: /^End all others/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: /^End/ }).click();
  await page.getByText("Your other sessions have ended.").waitFor();
  assert.equal(await page.locator("tr[data-id]").count(), 1);
  await elsewhere.reload();
  await elsewhere.getByLabel("Password").waitFor();
});
