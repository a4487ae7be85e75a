// What everybody has, also who may list nothing: where else one is logged in, the second factor, API tokens; with
// JavaScript and without.

import assert from "node:assert/strict";

import { isAccessible, profile, provokes, script, step, until } from "./browser.mjs";
import { asksForLogin, at, fillLogin, isLive } from "./console.mjs";
import { OPERATOR, VIEWER, code, logIn } from "./server.mjs";

/** A second factor is set up, asked for and removed. */
async function factor(javaScriptEnabled) {
  const accessible = async (page, name) => {
    if (javaScriptEnabled) await isAccessible(page, name);
  };
  step("a second factor is set up");
  const page = await at("/me", VIEWER, { javaScriptEnabled });
  await page.getByText("Set it up", { exact: true }).click();
  await page.getByLabel("Your password").fill("wrong-password");
  await page.getByRole("button", { name: "Show the secret" }).click();
  await page.getByRole("alert").waitFor();
  await accessible(page, "a wrong password");
  await page.goto("/me");
  await page.getByText("Set it up", { exact: true }).click();
  await page.getByLabel("Your password").fill(VIEWER.password);
  await page.getByRole("button", { name: "Show the secret" }).click();
  const secret = (await page.locator(".secret").innerText()).replaceAll(/\s/g, "");
  assert.match(secret, /^[A-Z2-7]{16,}$/);
  await page.getByRole("img", { name: /QR/ }).waitFor();
  await accessible(page, "a secret");
  const wrong = code(secret) === "000000" ? "000001" : "000000";
  await page.getByLabel("Six digits").fill(wrong);
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByRole("alert").waitFor();
  await accessible(page, "a wrong code");
  await page.getByLabel("Six digits").fill(code(secret));
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByRole("heading", { name: "The second factor is on" }).waitFor();
  assert.ok((await page.locator(".codes li").count()) >= 8);
  await accessible(page, "recovery codes");
  const recovery = await page.locator(".codes li").first().innerText();

  step("logins ask for it, and are seen at once");
  await page.goto("/me");
  if (javaScriptEnabled) await isLive(page);
  const rows = page.locator("tr[data-id]");
  assert.equal(await rows.count(), 1);
  const elsewhere = await (await profile({ javaScriptEnabled })).newPage();
  await elsewhere.goto("/login?next=/me");
  await fillLogin(elsewhere, VIEWER);
  await elsewhere.getByLabel("Code of your second factor").fill(code(secret, 1));
  await elsewhere.keyboard.press("Enter");
  await elsewhere.getByRole("heading", { name: "My sessions" }).waitFor();

  if (javaScriptEnabled) {
    await until("it is listed", async () => (await rows.count()) === 2);
    await isLive(elsewhere);
  }

  step("the other one ends");
  await page.reload();
  assert.equal(await rows.count(), 2);
  await page.getByRole("link", { name: /^End all others/ }).click();
  const shown = javaScriptEnabled ? page.getByRole("dialog") : page.locator("main");
  await accessible(page, "the end of all others");
  await shown.getByRole("button", { name: /^End/ }).click();
  await page.getByText("Your other sessions have ended.").waitFor();
  assert.equal(await rows.count(), 1);
  if (!javaScriptEnabled) await elsewhere.reload();
  await asksForLogin(elsewhere);

  step("it is removed, by a proof");
  await page.getByRole("link", { name: "Remove the second factor…" }).click();
  await shown.getByLabel("Your password").fill("wrong-password");
  await shown.getByRole("button", { name: "Remove it" }).click();
  await page.getByRole("alert").waitFor();
  await accessible(page, "no proof");
  await page.getByLabel(/^Or a code/).fill(recovery);
  await page.getByRole("button", { name: "Remove it" }).click();
  await page.getByText("logins need the password alone").waitFor();
  await fillLogin(elsewhere, VIEWER);
  await elsewhere.getByRole("heading", { name: "My sessions" }).waitFor();
}

/** A token is made, used, disabled and deleted. */
async function tokens(name, javaScriptEnabled) {
  const page = await at("/me", OPERATOR, { javaScriptEnabled });
  const shown = javaScriptEnabled ? page.getByRole("dialog") : page.locator("main");
  step(`${name}: a token is made, and shown once`);
  await page.getByText("Make a token", { exact: true }).first().click();
  await page.getByLabel("Name, such as what uses it").fill(name);
  await page.getByLabel("No more than what is chosen here:").check();
  const family = page.locator(".tree > details").filter({ has: page.getByText("thing", { exact: true }) });
  await family.locator("summary").click();
  await family.getByLabel("thing.list", { exact: true }).check();
  if (javaScriptEnabled) await isAccessible(page, "a form of a token");
  await page.getByRole("button", { name: "Make a token" }).click();
  await page.getByRole("heading", { name: "The new token" }).waitFor();
  const token = await page.locator(".secret").innerText();
  await page.getByRole("link", { name: "I have kept it" }).click();
  const row = page.getByRole("row").filter({ hasText: name });
  await row.getByText("thing.list").waitFor();
  assert.ok(!(await page.content()).includes(token));

  step(`${name}: a program has what was chosen`);
  const call = await logIn({ username: OPERATOR.username, password: token });
  await call("thing.list");
  await assert.rejects(call("user.list"), /permission/);

  step(`${name}: it is disabled, then deleted`);
  await row.getByRole("link", { name: /^Change/ }).click();
  await page.getByLabel("Why, for people").fill("lost");
  if (javaScriptEnabled) await isAccessible(page, "a token");
  await page.getByRole("button", { name: "Disable", exact: true }).click();
  await page.getByText("The change is stored").waitFor();
  await assert.rejects(call("thing.list"), /session|unknown/i);
  await page.getByRole("link", { name: "Delete this token…" }).click();
  await shown.getByRole("button", { name: "Delete this token" }).click();
  await page.getByText("The token is deleted").waitFor();
  assert.equal(await row.getByRole("link", { name: /^Change/ }).count(), 0);
}

script(async () => {
  // What is wrong is said with a status that says so.
  provokes(/status of 40[0-9]/);
  await factor(true);
  await factor(false);
  await tokens("with-script", true);
  await tokens("without-script", false);
});
