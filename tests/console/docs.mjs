// The documentation that the server has of itself: everybody can read it, and it loads nothing from elsewhere.

import assert from "node:assert/strict";

import { isAccessible, profile, script, step } from "./browser.mjs";

script(async () => {
  const page = await (await profile()).newPage();
  for (const path of ["/docs", "/docs/session.list", "/docs/errors"]) {
    step(path);
    const answer = await page.goto(path);
    assert.equal(answer.status(), 200);
    await isAccessible(page, path);
  }

  step("by links");
  await page.goto("/docs");
  await page.getByRole("link", { name: "session.end", exact: true }).click();
  await page.getByRole("heading", { name: "session.end", exact: true }).waitFor();
  await page.getByRole("link", { name: "Commands" }).click();
  await page.getByRole("heading", { name: "Commands", exact: true }).waitFor();
});
