// The card "Verified in this browser": gets a proof from the console or from a dropped file, has verify.js check it, and shows each
// step. The visitor's keys stay in this browser.
"use strict";

(() => {
    const card = document.getElementById("verification");
    if (card === null) return;
    const part = (name) => card.querySelector(`.${name}`);
    const PINNED = "ledgerd.verifier-key";
    let proof = null;

    // --- The pinned keys -------------------------------------------------------------------------------------------------

    // Some browsers keep nothing for pages from files: the key then lasts as long as the page.
    let unkept = null;
    const pinned = () => {
        try {
            return JSON.parse(localStorage.getItem(PINNED)) ?? unkept;
        } catch {
            return unkept;
        }
    };
    const pin = (keys) => {
        unkept = keys;
        try {
            localStorage.setItem(PINNED, JSON.stringify(keys));
        } catch {
            // As above.
        }
    };

    const parsed = async ({ log, witnesses }) => ({
        key: log === "" ? null : await LedgerProof.parseLogKey(log),
        witnesses: await Promise.all(witnesses.map(LedgerProof.parseWitnessKey)),
    });

    const entered = () => ({
        log: part("verifier-key").value.trim(),
        witnesses: part("witness-keys").value.split("\n").map((line) => line.trim()).filter((line) => line !== ""),
        since: new Date().toISOString(),
    });

    const showKeys = () => {
        const keys = pinned();
        part("pinned").hidden = keys === null;
        part("key-form").hidden = keys !== null;
        part("key-warning").hidden = true;
        if (keys === null) return;
        const [name, id] = keys.log.split("+");
        const witnesses = keys.witnesses.length === 0 ? "" : `, and ${keys.witnesses.length} witnesses`;
        part("pinned-key").textContent = `${name}+${id}`;
        part("pinned-since").textContent = `${witnesses}, remembered since ${keys.since.slice(0, 10)}`;
    };

    const remember = async (keys) => {
        pin(keys);
        showKeys();
        await check();
    };

    part("key-form").addEventListener("submit", async (event) => {
        event.preventDefault();
        const keys = entered();
        try {
            await parsed(keys);
        } catch (error) {
            part("key-error").textContent = error.message;
            part("key-error").hidden = false;
            return;
        }
        part("key-error").hidden = true;
        const before = pinned();
        if (before === null || before.log === keys.log) {
            await remember(keys);
            return;
        }
        part("key-warning-text").textContent =
            `This is not the key that you remembered on ${before.since.slice(0, 10)}, which was ${before.log}. Whoever swaps a log also ` +
            "offers another key. Ask the log's owner, and not this page, before you replace it.";
        part("key-warning").hidden = false;
        part("keep-key").focus();
    });
    part("change-key").addEventListener("click", () => {
        const keys = pinned();
        part("verifier-key").value = keys.log;
        part("witness-keys").value = keys.witnesses.join("\n");
        part("key-form").hidden = false;
        part("verifier-key").focus();
    });
    part("replace-key").addEventListener("click", () => remember(entered()));
    part("keep-key").addEventListener("click", showKeys);

    // --- What the page shows ---------------------------------------------------------------------------------------------

    const texts = (attribute) => {
        const cells = [...document.querySelectorAll(`[data-${attribute}]`)];
        return Object.fromEntries(cells.map((cell) => [cell.getAttribute(`data-${attribute}`), cell.textContent]));
    };

    const shown = () => {
        if (card.dataset.leaf === undefined) return null;
        const bytes = document.getElementById("published-bytes");
        return { index: card.dataset.leaf, leaf: texts("leaf-field"), fields: texts("column"), bytes: bytes?.textContent };
    };

    // --- The steps -------------------------------------------------------------------------------------------------------

    const element = (name, className, text) => {
        const made = document.createElement(name);
        made.className = className;
        made.textContent = text;
        return made;
    };

    const MARKS = { good: ["✓", "holds"], bad: ["✗", "fails"], open: ["–", "not checked"] };

    const showStep = ({ state, title, detail }) => {
        const [mark, meaning] = MARKS[state];
        const item = element("li", `step ${state}`, "");
        const sign = element("span", "mark", mark);
        sign.setAttribute("role", "img");
        sign.setAttribute("aria-label", meaning);
        const said = element("div", "", "");
        said.append(element("div", "", title), element("code", "quiet", detail));
        item.append(sign, said);
        return item;
    };

    const VERDICTS = {
        proven: "Proven: every step holds.",
        unsigned: "Every step holds that was checked. Give the log's verifier key to check who signed it.",
        failed: "Not proven.",
    };

    const moment = (microseconds) => new Date(Number(microseconds / 1000n)).toISOString();

    const showEntry = (entry) => {
        const into = part("proven-entry");
        if (into === null) return;
        into.replaceChildren();
        if (entry === null) return;
        const { leaf, payload } = entry;
        const lines = [
            ["Record", leaf.recordId ?? "(could not be read)"], ["Became", leaf.disposition], ["Why", leaf.reason && `${leaf.reason}: ${leaf.detail}`],
            ["Subject", leaf.subject], ["Sequence", leaf.sequence], ["Received", moment(leaf.serverTimeNs / 1000n)],
            ["Committed", moment(leaf.committedAtUs)], ["Log", entry.origin], ["Index", `${entry.index} of ${entry.size}`],
            ["SHA-256 of the bytes", LedgerProof.hex(leaf.payloadSha256)],
        ].filter(([, value]) => value !== undefined);
        const list = element("dl", "facts", "");
        for (const [name, value] of lines) list.append(element("dt", "", name), element("dd", "", String(value)));
        into.append(list);
        if (payload !== null) into.append(element("pre", "", new TextDecoder().decode(payload)));
    };

    const show = ({ verdict, steps, entry }) => {
        const failed = steps.find(({ state }) => state === "bad");
        part("verdict").textContent = failed === undefined ? VERDICTS[verdict] : `Not proven: ${failed.title}.`;
        part("verdict").className = `verdict ${verdict}`;
        part("steps").replaceChildren(...steps.map(showStep));
        showEntry(verdict === "failed" ? null : entry);
    };

    const fail = (title, detail) => show({ verdict: "failed", entry: null, steps: [{ state: "bad", title, detail }] });

    const check = async () => {
        if (proof === null) return;
        try {
            const keys = pinned();
            const given = keys === null ? {} : await parsed(keys);
            show(await LedgerProof.verify(proof, { ...given, shown: shown() }));
        } catch (error) {
            fail("The check itself failed", String(error));
        }
    };

    // --- Where the proof comes from --------------------------------------------------------------------------------------

    const fetchProof = async () => {
        try {
            const answer = await fetch(card.dataset.proof);
            if (!answer.ok) {
                const problem = await answer.json().catch(() => ({}));
                fail("There is no proof of this entry", problem.detail ?? `the console answered ${answer.status}`);
                return;
            }
            proof = new Uint8Array(await answer.arrayBuffer());
        } catch (error) {
            fail("The console does not give the proof", String(error));
            return;
        }
        await check();
    };

    const take = async (file) => {
        if (file === undefined) return;
        part("file-name").textContent = file.name;
        proof = new Uint8Array(await file.arrayBuffer());
        await check();
    };

    const acceptFiles = (field) => {
        field.addEventListener("change", () => take(field.files[0]));
        document.addEventListener("dragover", (event) => event.preventDefault());
        document.addEventListener("drop", (event) => {
            event.preventDefault();
            take(event.dataTransfer.files[0]);
        });
    };

    showKeys();
    const field = part("proof-file");
    if (field !== null) acceptFiles(field);
    if (card.dataset.proof !== undefined) fetchProof();
})();
