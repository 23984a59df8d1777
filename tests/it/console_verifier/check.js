// Runs the browser's check over proofs: lines of JSON in, a line of JSON for each out.
"use strict";
const LedgerProof = require(process.argv[2]);
const { createInterface } = require("node:readline");

const parsed = async ({ key, witnesses = [] }) => ({
    key: key === null ? null : await LedgerProof.parseLogKey(key),
    witnesses: await Promise.all(witnesses.map(LedgerProof.parseWitnessKey)),
});

const answer = async (question) => {
    let keys;
    try {
        keys = await parsed(question);
    } catch (error) {
        return { verdict: "bad key", why: error.message };
    }
    const bytes = new Uint8Array(Buffer.from(question.file, "base64"));
    const { verdict, steps, entry } = await LedgerProof.verify(bytes, { ...keys, shown: question.shown ?? null });
    const failed = steps.filter(({ state }) => state === "bad").map(({ name }) => name);
    const why = steps.map(({ detail }) => detail).join("; ");
    const { leaf, index, payload } = entry ?? {};
    const said = leaf && {
        record_id: leaf.recordId ?? null, disposition: leaf.disposition, subject: leaf.subject, sequence: Number(leaf.sequence),
        reason: leaf.reason ?? null, index: Number(index), payload_sha256: LedgerProof.hex(leaf.payloadSha256),
        with_payload: payload !== null,
    };
    return { verdict, failed, why, ...said };
};

(async () => {
    for await (const line of createInterface({ input: process.stdin })) {
        console.log(JSON.stringify(await answer(JSON.parse(line))));
    }
})();
