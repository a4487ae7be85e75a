// The whole way by keyboard alone: login, filter, choose, end, see that it has ended. The focus is always seen, and
// never lost.

import assert from "node:assert/strict";

import { profile, script, step, until } from "./browser.mjs";
import { SESSIONS, isLive, lists, row } from "./console.mjs";
import { OPERATOR, device, fleet } from "./server.mjs";

/** What has the focus: its role's own words, and whether one sees that it has it. */
function focused(page) {
  return page.evaluate(() => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    const isSeen = style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) > 0;
    const label = element.labels?.[0]?.innerText ?? element.getAttribute("aria-label");
    return { tag: element.localName, text: (label ?? element.innerText ?? "").trim(), isSeen };
  });
}

/** Goes on with a key until what has the focus is like this. */
async function goTo(page, tag, text, key = "Tab") {
  const passed = [];
  for (let presses = 0; presses < 80; presses += 1) {
    await page.keyboard.press(key);
    const now = await focused(page);
    passed.push(`${now.tag} ${now.text}`);
    if (now.tag !== "body") assert.ok(now.isSeen, `the focus on ${passed.at(-1)} is not seen`);
    if (now.tag === tag && text.test(now.text)) return;
  }
  assert.fail(`no ${tag} ${text} on the way: ${passed.join(", ")}`);
}

script(async () => {
  const [first, second] = await fleet("key", 2);
  const page = await (await profile()).newPage();

  step("login");
  await page.goto(`${SESSIONS}?sort=whoAmI`);
  assert.equal((await focused(page)).text, "E-mail address");
  await page.keyboard.type(OPERATOR.username);
  await goTo(page, "input", /Password/);
  await page.keyboard.type(OPERATOR.password);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  await isLive(page);

  step("past the bar");
  await page.keyboard.press("Tab");
  assert.match((await focused(page)).text, /skip|content/i);
  await page.keyboard.press("Enter");
  await until("in the page", () => page.evaluate(() => document.activeElement.id === "main"));

  step("filter");
  await goTo(page, "input", /Who, application or address/);
  await page.keyboard.type("key-");
  await page.keyboard.press("Enter");
  await page.waitForURL(/query=key-/);
  await lists(page, ["key-1", "key-2"]);
  await isLive(page);

  step("what is new while a row is chosen");
  await goTo(page, "input", /Choose/);
  await page.keyboard.press("Space");
  await device("key-3");
  await page.getByRole("button", { name: /^\+1 new/ }).waitFor();
  await goTo(page, "button", /^\+1 new/, "Shift+Tab");
  await page.keyboard.press("Enter");
  await lists(page, ["key-1", "key-2", "key-3"]);
  await goTo(page, "input", /Choose/);
  await page.keyboard.press("Space");

  step("end one in a dialog, which keeps the focus until it closes");
  await goTo(page, "a", /^End\s+key-1/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  const isInside = () => page.evaluate(() => document.activeElement.closest("dialog") !== null);
  await until("the focus is inside", isInside);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.match((await focused(page)).text, /^End\s+key-1/, "the focus is where it was");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await goTo(page, "button", /End this session/);
  await page.keyboard.press("Enter");
  await first.left;

  step("end all that match");
  await page.getByRole("dialog").getByText("Ended 1 session").waitFor();
  await page.keyboard.press("Escape");
  // The row stays while the focus is in it.
  await until("its end is seen", async () =>
    /gone|over/.test((await row(page, "key-1").getAttribute("class")) ?? ""),
  );
  await goTo(page, "a", /^End all/);
  await lists(page, ["key-2", "key-3"]);
  assert.match((await focused(page)).text, /^End all 2 that match/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await until("the focus is inside", isInside);
  await goTo(page, "button", /^End 2/);
  await page.keyboard.press("Enter");
  await second.left;
  await page.getByRole("dialog").getByText("Ended 2 sessions").waitFor();
  await until("the focus stays inside", isInside);
  assert.equal((await focused(page)).text, "Back to the list");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.match((await focused(page)).text, /^End all/, "the focus is where it was");
  await lists(page, []);

  step("end those chosen");
  const fleets = await fleet("many", 12);
  await page.goto(`${SESSIONS}?query=many-&sort=whoAmI`);
  await isLive(page);
  await goTo(page, "input", /^Choose many-1$/);
  await page.keyboard.press("Space");
  await goTo(page, "input", /^Choose many-11$/);
  await page.keyboard.press("Space");
  await goTo(page, "button", /^End those chosen/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "End 2 sessions?" }).waitFor();
  await goTo(page, "button", /^End 2 sessions/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByText("Ended 2 sessions").waitFor();
  await page.keyboard.press("Escape");
  assert.match((await focused(page)).text, /^End those chosen/, "the focus is where it was");
  await Promise.all([fleets[0].left, fleets[10].left]);

  step("more than ten, by their number");
  await fleet("many-more", 2);
  await page.reload();
  await isLive(page);
  await goTo(page, "a", /^End all 12/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog", { name: "End 12 sessions?" }).waitFor();
  // It is the first that there is to do.
  assert.match((await focused(page)).text, /Type\s+12/);
  await page.keyboard.type("1");
  await page.keyboard.press("Enter");
  assert.match((await focused(page)).text, /Type\s+12/, "what is wrong has the focus");
  await page.keyboard.type("2");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByText("Ended 12 sessions").waitFor();
  await Promise.all(fleets.map(({ left }) => left));

  step("from row to row in every list");
  for (const path of [SESSIONS, "/o/basic-org/things", "/o/basic-org/events?types=session.*", "/o/basic-org/access/users"]) {
    await page.goto(path);
    const names = [];
    for (const key of ["j", "j", "k"]) {
      await page.keyboard.press(key);
      const { tag, text, isSeen } = await focused(page);
      assert.ok(tag === "a" && isSeen, `${path}: ${tag} ${text}`);
      names.push(text);
    }
    assert.equal(names[0], names[2], path);
    assert.ok(await page.evaluate(() => document.activeElement.closest("tbody tr:first-child")), path);
  }
});
