// The rejects: by reason, one with its fault marked, and a decision with its preview.

import { accessibilityFindings, assert, facts, go, heading, open, overflow, run } from "./browser.mjs";

async function signIn(page, token) {
    await page.goto("/login");
    await page.getByLabel("Token").fill(token);
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => url.pathname === "/");
}

await run({
    "the list says what was rejected and why, and leads to each": async () => {
        const page = await open();
        await signIn(page, facts.reader);
        await go(page, "/rejects");
        assert.equal(await heading(page), "Rejects");
        await page.locator("main").getByRole("link", { name: "unknown_action" }).first().click();
        await page.waitForURL((url) => url.searchParams.get("reason") === "unknown_action");
        await go(page, `/rejects/${facts.leaf}`);
        const text = await page.locator("main").innerText();
        for (const part of ["unknown_action", "Cause", "Cure", "As it was published", "WORLD_DOMINATED"]) assert.ok(text.includes(part), part);
        assert.match(await page.locator("mark").first().innerText(), /WORLD_DOMINATED/);
    },
    "a reader is offered no decision": async () => {
        const page = await open();
        await signIn(page, facts.reader);
        await go(page, `/rejects/${facts.leaf}`);
        assert.equal(await page.locator("main form[method=post]").count(), 0);
    },
    "an operator sees what a requeue would do before it is done": async () => {
        const page = await open();
        await signIn(page, facts.operator);
        await go(page, `/rejects/${facts.leaf}`);
        await page.getByLabel(/Requeue: publish/).check();
        await page.getByLabel("Reason, for the record").fill("<b>the registry</b> has it now");
        await Promise.all([page.waitForURL(/\/preview$/), page.getByRole("button", { name: "Preview" }).click()]);
        const preview = page.getByRole("status").filter({ hasText: "This would publish" });
        assert.match(await preview.innerText(), /again, once, on ledger\.EXEC\.BRM-CTO/);
        assert.match(await preview.innerText(), /grace, because: <b>the registry<\/b> has it now/);
        assert.deepEqual(await accessibilityFindings(page), []);

        await Promise.all([page.waitForURL(new RegExp(`/rejects/${facts.leaf}$`)), page.getByRole("button", { name: "Requeue" }).click()]);
        assert.match(await page.locator("main").innerText(), /requeued by grace/);
    },
    "the page of a decision is fit for a telephone, and for the dark": async () => {
        const page = await open({ width: 360, dark: true });
        await signIn(page, facts.operator);
        await go(page, `/rejects/${facts.second}`);
        assert.deepEqual(await overflow(page), []);
        assert.deepEqual(await accessibilityFindings(page), []);
    },
});
