// Two tabs in two organisations do not move each other, and looking moves nobody's session.

import assert from "node:assert/strict";

import { isAccessible, script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive, lists } from "./console.mjs";
import { ADMIN, VIEWER, YORK, device, fleet, logIn } from "./server.mjs";

const YORK_SESSIONS = "/o/york-org/sessions?kind=application";
const BASIC_SESSIONS = `${SESSIONS}?kind=application`;

script(async () => {
  await fleet("basic", 2);
  await fleet("york", 1, YORK);
  const basic = await at(BASIC_SESSIONS, ADMIN);
  const york = await basic.context().newPage();
  await york.goto(YORK_SESSIONS);
  await isLive(basic);
  await isLive(york);
  await lists(basic, ["basic-1", "basic-2"]);
  await lists(york, ["york-1"]);

  step("each follows its own");
  await device("basic-3");
  await device("york-2", YORK);
  await lists(basic, ["basic-1", "basic-2", "basic-3"]);
  await lists(york, ["york-1", "york-2"]);

  step("each stays where it is");
  await basic.reload();
  await lists(basic, ["basic-1", "basic-2", "basic-3"]);
  await york.reload();
  await lists(york, ["york-1", "york-2"]);

  step("another organisation is found while one types");
  await york.getByRole("link", { name: "York" }).first().click();
  const dialog = york.getByRole("dialog");
  const names = () => dialog.locator("td[data-cell=who]").allInnerTexts();
  await until("all are there", async () => (await names()).length >= 3);
  await dialog.getByLabel("Name, key or slug").fill("basic");
  await until("what fits is left", async () => (await names()).every((name) => /basic/i.test(name)));
  await isAccessible(york, "organisations");
  await dialog.getByLabel("Name, key or slug").fill("zebra");
  await dialog.getByText("No organisation").waitFor();
  await dialog.getByRole("link", { name: "Close" }).click();
  await dialog.waitFor({ state: "hidden" });
  await lists(york, ["york-1", "york-2"]);

  step("the session has not moved");
  const call = await logIn(ADMIN);
  const { result } = await call("session.mine");
  const orgs = result.map(({ orgKey }) => orgKey);
  assert.ok(orgs.length >= 2 && orgs.every((org) => org === "SYSTEM"), JSON.stringify(result));

  step("who has no right in the other sees nothing of it");
  const answers = [];
  const viewer = await at("/docs", VIEWER);
  for (const path of ["/o/york-org/sessions", "/o/no-such/sessions"]) {
    const answer = await viewer.context().request.get(path);
    const text = await answer.text();
    assert.ok(!text.includes("york-1"), text);
    answers.push([answer.status(), text.replaceAll(/york-org|no-such|data-now="[^"]*"/g, "?")]);
  }
  assert.equal(answers[0][0], 403);
  assert.deepEqual(answers[0], answers[1]);
});
