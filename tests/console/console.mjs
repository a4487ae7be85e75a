// The console as its users find their way in it: by labels, names of buttons and texts of rows.

import assert from "node:assert/strict";

import { profile, until } from "./browser.mjs";

export const SESSIONS = "/o/basic-org/sessions";

/** Logs in on the page that asks for it. */
export async function fillLogin(page, { username, password }) {
  await page.getByLabel("E-mail address").fill(username);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

/** Waits until a page asks for a login. The one before it may have fields for passwords, too. */
export async function asksForLogin(page) {
  await page.waitForURL((found) => found.pathname === "/login");
  await page.getByLabel("Password").waitFor();
}

/** A page of a new profile in which somebody has logged in, at this path. */
export async function at(path, login, options) {
  const page = await (await profile(options)).newPage();
  await page.goto(`/login?next=${encodeURIComponent(path)}`);
  await fillLogin(page, login);
  await page.waitForURL((found) => found.pathname + found.search === path);
  return page;
}

/** The row of who is named so. */
export function row(page, who) {
  return page.locator("tr[data-id]").filter({ has: page.getByText(who, { exact: true }) });
}

/** Who is listed, from top to bottom. */
export function listed(page) {
  return page.locator("tr[data-id]").evaluateAll((rows) => rows.map((row) => row.querySelector("bdi").innerText));
}

/** Waits until exactly these are listed, in any order. */
export async function lists(page, names) {
  const wanted = [...names].sort();
  await until(`${wanted} listed`, async () => {
    assert.deepEqual((await listed(page)).sort(), wanted);
    return true;
  });
}

/** Waits until the page follows the server. */
export async function isLive(page) {
  await page.locator("[data-live]").filter({ hasText: /^live$/ }).waitFor();
}

/** Counts the streams of events that are open: those that the pages of a profile have begun and not ended. */
export function streams(context) {
  const open = new Set();
  context.on("request", (request) => {
    if (new URL(request.url()).pathname === "/events") open.add(request);
  });
  for (const end of ["requestfinished", "requestfailed"]) {
    context.on(end, (request) => open.delete(request));
  }
  // Nothing is said of the requests of a page that is closed.
  return () => [...open].filter((request) => !request.frame().page().isClosed()).length;
}

/** As if another tab or window were before a page: headless, all are seen. */
export function hide(page, hidden) {
  return page.evaluate((hidden) => {
    const state = hidden ? "hidden" : "visible";
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
}
