// Every screen, whatever is on it: its heading, its look in light and dark and on a telephone, the keyboard, and axe.

import { accessibilityFindings, assert, facts, go, heading, open, overflow, run } from "./browser.mjs";

/** Path and heading of each screen, in both states where there are two. */
const SCREENS = facts.screens;

async function each(page, look) {
    for (const [path, expected] of SCREENS) {
        const response = await page.goto(path);
        assert.equal(response.status(), path === "/nowhere" ? 404 : 200, path);
        assert.match(await heading(page), new RegExp(expected), path);
        await look(path);
    }
}

const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

await run({
    "each screen opens with its heading, its name in the title, and one place in the way at the top": async () => {
        const page = await open();
        await each(page, async (path) => {
            assert.match(await page.title(), /ledgerd$/, path);
            assert.ok(await page.locator("nav a[aria-current=page]").count() <= 1, path);
            assert.equal(await page.locator("main h1").count(), 1, path);
        });
    },
    "each screen works without script": async () => each(await open({ script: false }), async () => {}),
    "axe finds nothing in the light": async () => {
        const page = await open();
        await each(page, async (path) => assert.deepEqual(await accessibilityFindings(page), [], path));
    },
    "axe finds nothing in the dark": async () => {
        const page = await open({ dark: true });
        await each(page, async (path) => assert.deepEqual(await accessibilityFindings(page), [], path));
    },
    "the dark is dark, and the light is light": async () => {
        const [light, dark] = [await open(), await open({ dark: true })];
        const brightness = async (page) => {
            await page.goto(SCREENS[0][0]);
            return (await background(page)).match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
        };
        const [bright, dim] = [await brightness(light), await brightness(dark)];
        assert.ok(bright > 600 && dim < 150, `${bright} and ${dim}`);
    },
    "nothing sticks out at 360 px, or at the width of a wall screen": async () => {
        for (const width of [360, 3840]) {
            const page = await open({ width });
            await each(page, async (path) => assert.deepEqual(await overflow(page), [], `${path} at ${width} px`));
        }
    },
    "the keyboard alone reaches the content, the screens and the search": async () => {
        const page = await open();
        await go(page, "/timeline");
        const focused = () => page.evaluate(() => document.activeElement.outerHTML);
        await page.keyboard.press("Tab");
        assert.match(await focused(), /class="skip"/);
        const skip = await page.locator(".skip").boundingBox();
        assert.ok(skip.x >= 0 && skip.y >= 0, "the link is seen when it has the focus");
        await page.keyboard.press("Enter");
        assert.match(await focused(), /^<main/);

        await go(page, "/timeline");
        const reached = [];
        for (let stops = 0; stops < 12 && !reached.at(-1)?.startsWith("<input"); stops += 1) {
            await page.keyboard.press("Tab");
            reached.push(await focused());
            const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
            assert.notEqual(outline, "none", `the focus is seen on ${reached.at(-1)}`);
        }
        for (const name of ["Now", "Timeline", "Money", "Rejects", "Trust"]) {
            assert.ok(reached.some((html) => html.includes(`>${name}<`)), `${name}: ${reached}`);
        }
        assert.match(reached.at(-1), /type="search"/);
        await page.keyboard.type("TASK-1");
        await Promise.all([page.waitForURL(/\/(search\?q=TASK-1|task\/)/), page.keyboard.press("Enter")]);
    },
});
