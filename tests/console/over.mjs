// Sessions that are over while a page is open: the page becomes the login, whether it was seen or not, and neither the
// way back nor another tab shows what was there. A page that can't be followed keeps no other from it.

import assert from "node:assert/strict";

import { isAccessible, provokes, script, step, until } from "./browser.mjs";
import { SESSIONS, asksForLogin, at, fillLogin, hide, isLive, listed, lists } from "./console.mjs";
import { OPERATOR, VIEWER, device, logIn } from "./server.mjs";

const path = `${SESSIONS}?kind=application&sort=whoAmI`;

script(async () => {
  // The stream is refused, and the next user may see nothing of that page.
  provokes(/status of 40[13]/);
  const call = await logIn(OPERATOR);
  await device("over-1");
  const page = await at(path, OPERATOR);
  await isLive(page);
  const context = page.context();
  /** Ends the browser's session from elsewhere. */
  const end = async () => {
    const { result } = await call("session.list", { kind: "user", protocol: "http" });
    const others = result.filter(({ userAgent }) => userAgent?.includes("Chrome"));
    assert.ok(others.length > 0, JSON.stringify(result));
    for (const { ref } of others) await call("session.end", { ref });
  };

  step("a page that is followed");
  const other = await context.newPage();
  await other.goto(SESSIONS);
  await isLive(other);
  await end();
  await Promise.all([page, other].map(asksForLogin));
  assert.equal(new URL(page.url()).searchParams.get("next"), path);

  step("it goes on where it was");
  await fillLogin(page, OPERATOR);
  await lists(page, ["over-1"]);
  await isLive(page);
  assert.equal(new URL(page.url()).search, new URL(path, page.url()).search);

  step("one that was hidden meanwhile");
  const open = [page];
  await other.close();
  await Promise.all(open.map((one) => hide(one, true)));
  await end();
  await hide(page, false);
  await asksForLogin(page);
  await fillLogin(page, OPERATOR);
  await isLive(page);

  step("a page that is too long to be followed");
  const long = await context.newPage();
  await long.goto(`${path}&from=${"x".repeat(5000)}`);
  await lists(long, ["over-1"]);
  await device("over-2");
  await lists(page, ["over-1", "over-2"]);
  await isLive(page);
  assert.deepEqual(await listed(long), ["over-1"]);
  await long.close();

  step("logout, in one tab for all");
  const second = await context.newPage();
  await second.goto(path);
  await isLive(second);
  await page.getByText(OPERATOR.username, { exact: true }).first().click();
  await page.getByRole("button", { name: "Log out" }).click();
  await Promise.all([page, second].map(asksForLogin));
  await isAccessible(second, "a session is over");

  step("the way back shows nothing");
  await page.goBack();
  await asksForLogin(page);
  assert.ok(!(await page.content()).includes("over-1"));

  step("nor does it to the next user");
  await fillLogin(page, VIEWER);
  await until("the next one is in", () => page.getByText(VIEWER.username).first().isVisible());
  for (let steps = 0; steps < 3; steps += 1) {
    await page.goBack();
    assert.ok(!(await page.content()).includes("over-1"), page.url());
  }
});
