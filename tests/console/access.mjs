// Who may do what, changed in the console, with JavaScript and without: a role by its tree of permissions, a user with
// that role, an application whose token is shown once, an invitation, a ban, the end of each.

import assert from "node:assert/strict";

import { isAccessible, profile, provokes, script, step, until } from "./browser.mjs";
import { asksForLogin, at, fillLogin } from "./console.mjs";
import { ADMIN, OPERATOR, device, logIn } from "./server.mjs";

const ACCESS = "/o/basic-org/access";

/** Runs the flow; what it makes has this name. */
async function changes(name, javaScriptEnabled) {
  const page = await at(`${ACCESS}/roles`, OPERATOR, { javaScriptEnabled });
  const heading = (text) => page.getByRole("heading", { name: text });
  const shown = javaScriptEnabled ? page.getByRole("dialog") : page.locator("main");
  const accessible = async (what) => {
    if (javaScriptEnabled) await isAccessible(page, what);
  };
  const email = `${name}@basicorg.example`;
  const password = "a-first-password";

  step(`${name}: a role of boxes`);
  await page.getByRole("link", { name: "Make a role" }).click();
  await page.getByLabel("Key, by which commands name it").fill(name);
  const family = page.locator(".tree > details").filter({ has: page.getByText("session", { exact: true }) });
  await family.locator("summary").click();
  await family.getByLabel("session.list", { exact: true }).check();
  await family.getByLabel("session.find", { exact: true }).check();
  await accessible("the tree, open");
  await page.getByRole("button", { name: "Make the role" }).click();
  await page.getByText("The role is there. Nobody holds it yet.").waitFor();
  const held = page.locator(".tree > details").filter({ has: page.getByText("session", { exact: true }) });
  assert.match(await held.locator("summary").innerText(), /2 of \d+/);
  assert.ok(await held.getByLabel("session.list", { exact: true }).isChecked());
  await accessible("a role");

  step(`${name}: the same key again`);
  await page.goto(`${ACCESS}/roles/new`);
  await page.getByLabel("Key, by which commands name it").fill(name);
  await page.getByLabel("What it is for").fill("kept");
  await page.getByRole("button", { name: "Make the role" }).click();
  await page.getByRole("alert").waitFor();
  assert.equal(await page.getByLabel("What it is for").inputValue(), "kept");
  await accessible("a role that is refused");

  step(`${name}: a user with it`);
  await page.goto(`${ACCESS}/invites`);
  await page.getByLabel("E-mail address").fill(email);
  await page.getByRole("checkbox", { name: new RegExp(`^${name}`) }).check();
  await page.getByRole("button", { name: "Add or invite" }).click();
  await page.getByText("With a first password, a user is made.").waitFor();
  await accessible("a user that is refused");
  assert.ok(await page.getByRole("checkbox", { name: new RegExp(`^${name}`) }).isChecked());
  await page.getByLabel(/^First password/).fill(password);
  await page.getByRole("button", { name: "Add or invite" }).click();
  await page.getByText("The user is a member now.").waitFor();
  await accessible("a user is made");

  step(`${name}: who has just that right`);
  const login = { username: email, password };
  const own = await at("/o/basic-org/sessions", login, { javaScriptEnabled });
  const screens = await own.getByRole("navigation", { name: "Screens" }).getByRole("link").allInnerTexts();
  assert.deepEqual(screens, ["Overview", "Sessions"]);
  assert.equal(await own.getByRole("link", { name: /^End/ }).count(), 0);
  await own.goto("/o/basic-org/things");
  await own.getByRole("alert").waitFor();

  step(`${name}: an application, whose token is shown once`);
  await page.goto(`${ACCESS}/apps/new`);
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByRole("checkbox", { name: /register at their first login/ }).check();
  await page.getByRole("button", { name: "Make the application" }).click();
  await heading("The application is there").waitFor();
  const token = await page.locator(".secret").innerText();
  assert.ok(token.length >= 16, token);
  await accessible("a secret");
  const thing = await device(`of-${name}`, token);
  await page.getByRole("link", { name: "I have kept it" }).click();
  await heading(`Application ${name}`).waitFor();
  assert.ok(!(await page.content()).includes(token));
  // Browsers have nothing of it, and would have to send the form again.
  await page.goBack().catch((error) => assert.match(String(error), /ERR_CACHE_MISS/));
  await until("the way back shows nothing of it", async () => !(await page.content().catch(() => token)).includes(token));
  await page.goto(`${ACCESS}/apps?query=${name}`);
  await page.getByRole("link", { name, exact: true }).click();
  await accessible("an application");
  await page.getByRole("link", { name: "Disable…" }).click();
  await accessible("an application's end");
  await shown.getByRole("button", { name: /^Disable/ }).click();
  await thing.left;
  await page.getByText("its sessions have ended").waitFor();

  step(`${name}: somebody of another organisation is invited`);
  const guest = `guest-${name}@yorkorg.example`;
  const admin = await logIn(ADMIN);
  await admin("user.create", { emailAddress: guest, password, defaultOrgId: "533ef300310046187700007f" });
  await page.goto(`${ACCESS}/invites`);
  await page.getByLabel("E-mail address").fill(guest);
  await page.getByRole("button", { name: "Add or invite" }).click();
  await page.getByText("The invitation is there").waitFor();
  await accessible("an invitation");
  const theirs = await at("/me", { username: guest, password }, { javaScriptEnabled });
  await theirs.getByRole("heading", { name: "Invitations" }).waitFor();
  if (javaScriptEnabled) await isAccessible(theirs, "one's own invitation");
  await theirs.getByRole("button", { name: "Accept" }).click();
  await theirs.getByText("You are a member now.").waitFor();

  step(`${name}: a ban, and the end`);
  await page.goto(`${ACCESS}/users?query=${email}`);
  await page.getByRole("link", { name: email }).click();
  await page.getByRole("link", { name: "Ban…" }).click();
  await accessible("a user's ban");
  await shown.getByLabel("Why, for people").fill("left us");
  await shown.getByRole("button", { name: "Ban" }).click();
  await page.getByText("The user is banned").waitFor();
  await own.goto("/me");
  await fillLogin(own, login);
  await own.getByRole("alert").filter({ hasText: "left us" }).waitFor();
  await page.getByRole("link", { name: "Delete the user…" }).click();
  await accessible("a user's end");
  await shown.getByRole("button", { name: "Delete" }).click();
  await page.getByText("The user is deleted").waitFor();

  step(`${name}: the trail has it all`);
  await page.goto(`${ACCESS}/trail`);
  const commands = await page.locator("tbody td:nth-child(3)").allInnerTexts();
  for (const command of ["role.create", "user.create", "app.create", "app.update", "user.update", "user.delete"]) {
    assert.ok(commands.includes(command), `${command}: ${commands}`);
  }
}

script(async () => {
  // What forms and pages refuse.
  provokes(/status of 40[0-9]/);
  await changes("with-script", true);
  await changes("without-script", false);
  const page = await (await profile()).newPage();
  await page.goto(`${ACCESS}/users`);
  await asksForLogin(page);
});
