// Login with a second factor, links that lead on behind it, and logout.

import assert from "node:assert/strict";

import { isAccessible, profile, provokes, script, step } from "./browser.mjs";
import { SESSIONS, asksForLogin, fillLogin } from "./console.mjs";
import { OPERATOR, code, logIn } from "./server.mjs";

script(async () => {
  const call = await logIn(OPERATOR);
  const { secret } = await call("user.mfa.enrol", { password: OPERATOR.password });
  await call("user.mfa.confirm", { code: code(secret) });

  step("a link leads to the login");
  const context = await profile();
  const page = await context.newPage();
  await page.goto(`${SESSIONS}?kind=user`);
  await asksForLogin(page);
  assert.ok(await page.getByText("not encrypted").isVisible());
  await isAccessible(page, "login");

  step("a wrong password");
  provokes(/status of 40[13]/);
  await fillLogin(page, { ...OPERATOR, password: "wrong-password" });
  await page.getByRole("alert").waitFor();
  assert.equal(await page.getByLabel("Password").inputValue(), "");
  await isAccessible(page, "login refused");

  step("a password, then a wrong code");
  await fillLogin(page, OPERATOR);
  const field = page.getByLabel("Code of your second factor");
  await field.waitFor();
  await isAccessible(page, "login code");
  await field.fill("000000");
  await field.press("Enter");
  await page.getByRole("alert").waitFor();

  step("the right code");
  // The code of now was used to confirm.
  await field.fill(` ${code(secret, 1)} `);
  await field.press("Enter");
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  assert.equal(new URL(page.url()).search, "?kind=user");
  const cookies = await context.cookies();
  assert.deepEqual(
    cookies.map(({ name, httpOnly, sameSite, path }) => [name, httpOnly, sameSite, path]),
    [["tr50d", true, "Lax", "/"]],
  );
  assert.equal(await page.evaluate(() => document.cookie), "");

  step("it is a session like others");
  const { result } = await call("session.list", { userName: OPERATOR.username });
  const agents = result.map(({ userAgent }) => userAgent ?? "");
  assert.ok(agents.some((agent) => agent.includes("Chrome")), JSON.stringify(result));

  step("logout");
  await page.getByText(OPERATOR.username, { exact: true }).first().click();
  await page.getByRole("button", { name: "Log out" }).click();
  await asksForLogin(page);
  await page.goto(SESSIONS);
  await asksForLogin(page);
});
