// Signing in with a token, going where one wanted to go, and signing out.

import { accessibilityFindings, assert, facts, heading, open, overflow, run } from "./browser.mjs";

await run({
    "a page asks a stranger to sign in, and is there afterwards": async () => {
        const page = await open();
        await page.goto("/timeline?actor=BRM-CTO");
        assert.match(page.url(), /\/login\?next=/);
        assert.equal(await heading(page), "Sign in");
        await page.getByLabel("Token").fill("a wrong token");
        await page.getByRole("button", { name: "Sign in" }).click();
        await page.getByRole("alert").waitFor();
        assert.match(await page.getByRole("alert").innerText(), /not known/);
        await page.getByLabel("Token").fill(facts.token);
        await page.keyboard.press("Enter");
        await page.waitForURL(/\/timeline\?actor=BRM-CTO$/);
        assert.match(await page.locator("header").innerText(), /grace, operate/);

        await page.getByRole("button", { name: "Sign out" }).click();
        await page.waitForURL(/\/login$/);
        await page.goto("/timeline");
        assert.match(page.url(), /\/login/);
    },
    "another site cannot use the session": async () => {
        const page = await open();
        await page.goto("/login");
        await page.getByLabel("Token").fill(facts.token);
        await page.keyboard.press("Enter");
        await page.waitForURL((url) => url.pathname === "/");
        const cookies = await page.context().cookies();
        assert.deepEqual(cookies.map(({ httpOnly, sameSite }) => [httpOnly, sameSite]), [[true, "Strict"]]);
        assert.equal(await page.evaluate(() => document.cookie), "");
    },
    "the page to sign in is fit for everybody": async () => {
        for (const dark of [false, true]) {
            const page = await open({ dark, width: 360 });
            await page.goto("/login");
            assert.deepEqual(await accessibilityFindings(page), []);
            assert.deepEqual(await overflow(page), []);
        }
    },
});
