//! Reads the stored checkpoints and cosignatures, and compares them with what they say and with the anchor files.

use crate::postgres::remedy::DatabaseError;
use crate::verify::checkpoint::{KnownRoot, Signer};
use crate::verify::findings::{Finding, Findings};
use crate::verify::outside::AnchoredCheckpoints;
use crate::verify::snapshot::{Snapshot, answer};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{FromRow, Row};
use tlog::cosignature::{Quorum, QuorumError, WitnessVerifierKey};
use tlog::note::{Note, Signature};

const TABLE: &str = "ledger.checkpoint";
const COSIGNATURES: &str = "ledger.cosignature";

/// Signed roots, and what is wrong with their rows.
#[derive(Debug, Default)]
pub struct StoredRoots {
    pub known_roots: Vec<KnownRoot>,
    pub findings: Vec<Finding>,
}

/// A cosignature with the note that it is of.
#[derive(FromRow)]
struct StoredCosignature {
    tree_size: i64,
    witness: String,
    line: String,
    note: String,
}

/// Of so many of the newest checkpoints, one must be cosigned: cosignatures come a moment after.
const COSIGNED_WITHIN: i64 = 100;

impl Snapshot {
    /// The signed roots of trees that end in a range, each with its cosignatures.
    pub(super) async fn checkpoints_in(
        &self,
        reader: &mut PgConnection,
        start: i64,
        end: i64,
    ) -> Result<StoredRoots, DatabaseError> {
        let mut stored = StoredRoots::default();
        if !self.shape.checkpoints {
            return Ok(stored);
        }
        let query =
            "select tree_size, root, origin, note from ledger.checkpoint where tree_size > $1 and tree_size <= $2";
        let rows = answer(sqlx::query(query).bind(start).bind(end).fetch_all(&mut *reader)).await?;
        rows.iter().try_for_each(|row| stored.take(row, &self.signer)).map_err(DatabaseError::new)?;
        if rows.is_empty() {
            return Ok(stored);
        }
        let query = "select it.tree_size, it.witness, it.line, checkpoint.note
            from ledger.checkpoint as checkpoint
            join ledger.cosignature as it using (origin, tree_size)
            where checkpoint.tree_size > $1 and checkpoint.tree_size <= $2";
        let cosignatures: Vec<StoredCosignature> =
            answer(sqlx::query_as(query).bind(start).bind(end).fetch_all(reader)).await?;
        stored.findings.extend(cosignatures.iter().filter_map(|it| it.fault(&self.witnesses)));
        Ok(stored)
    }

    /// The signed roots of trees that are larger than this one, and those of the empty tree.
    pub async fn checkpoints_beyond(&self, size: i64) -> Result<StoredRoots, DatabaseError> {
        let mut stored = StoredRoots::default();
        if self.shape.checkpoints {
            let query = "select tree_size, root, origin, note from ledger.checkpoint where tree_size > $1 or tree_size <= 0 limit 1000";
            let rows = self.with(async |reader| answer(sqlx::query(query).bind(size).fetch_all(reader)).await).await?;
            rows.iter().try_for_each(|row| stored.take(row, &self.signer)).map_err(DatabaseError::new)?;
        }
        Ok(stored)
    }

    /// Names checkpoints that an anchor has and the table has not, and cosignatures of no checkpoint. What was signed last may not be
    /// stored yet.
    pub(crate) async fn checkpoints_missing(
        &self,
        anchored: &[AnchoredCheckpoints],
        findings: &mut Findings,
    ) -> Result<(), DatabaseError> {
        if !self.shape.checkpoints {
            return Ok(());
        }
        for AnchoredCheckpoints { file, origin, sizes } in anchored {
            let query = "select size
                from unnest($2::bigint[]) as size
                where size < (select max(tree_size) from ledger.checkpoint where origin = $1)
                    and not exists (select from ledger.checkpoint where origin = $1 and tree_size = size)
                order by size";
            let ask = async |reader: &mut PgConnection| {
                answer(sqlx::query_scalar(query).bind(origin).bind(sizes).fetch_all(reader)).await
            };
            let missing: Vec<i64> = self.with(ask).await?;
            for size in missing {
                findings.add(Finding::new(TABLE, size, "tree_size", format!("is missing: {file} has it")));
            }
        }
        let query = "select it.tree_size, it.witness
            from ledger.cosignature as it
            where not exists (
                select from ledger.checkpoint where (checkpoint.origin, checkpoint.tree_size) = (it.origin, it.tree_size)
            )
            order by 1, 2
            limit 1000";
        let orphans: Vec<(i64, String)> =
            self.with(async |reader| answer(sqlx::query_as(query).fetch_all(reader)).await).await?;
        for (size, witness) in orphans {
            findings.add(Finding::new(COSIGNATURES, format!("{size} {witness}"), "tree_size", "has no checkpoint"));
        }
        Ok(())
    }

    /// Whether enough witnesses cosigned one of the newest checkpoints.
    pub(crate) async fn newest_is_cosigned(
        &self,
        quorum: &Quorum,
        findings: &mut Findings,
    ) -> Result<(), DatabaseError> {
        let query = "select newest.tree_size, newest.note, coalesce(string_agg(it.line, ''), '')
            from (
                select * from ledger.checkpoint
                where origin = (select origin from ledger.checkpoint order by signed_at desc limit 1)
                order by tree_size desc
                limit $1
            ) as newest
            left join ledger.cosignature as it using (origin, tree_size)
            group by newest.tree_size, newest.note
            order by newest.tree_size desc";
        let ask = async |reader: &mut PgConnection| {
            answer(sqlx::query_as(query).bind(COSIGNED_WITHIN).fetch_all(reader)).await
        };
        let newest: Vec<(i64, String, String)> =
            if self.shape.checkpoints { self.with(ask).await? } else { Vec::new() };
        let Some(size) = newest.first().map(|(size, ..)| *size) else {
            findings.add(Finding::new(
                TABLE,
                "newest",
                "note",
                "is missing: nothing was signed that a witness could cosign",
            ));
            return Ok(());
        };
        let reached = newest.iter().map(|(_, note, lines)| is_reached(quorum, note, lines));
        let mut why = None;
        for reached in reached {
            match reached {
                Ok(()) => return Ok(()),
                Err(error) => why = why.or(Some(error)),
            }
        }
        let says = format!("is not cosigned: {}", why.unwrap_or_default());
        findings.add(Finding::new(TABLE, size, "note", says));
        Ok(())
    }
}

fn is_reached(quorum: &Quorum, note: &str, lines: &str) -> Result<(), String> {
    let mut note = Note::parse(note.as_bytes()).map_err(|error| error.to_string())?;
    for line in Signature::parse_lines(lines).map_err(|error| error.to_string())? {
        note.add(line).map_err(|error| error.to_string())?;
    }
    quorum.reached_by(&note).map(drop).map_err(|error: QuorumError| error.to_string())
}

impl StoredRoots {
    fn take(&mut self, row: &PgRow, signer: &Signer) -> Result<(), sqlx::Error> {
        let (size, root, origin, note): (i64, Vec<u8>, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let known_size = u64::try_from(size).unwrap_or(0);
        let mut differ = |field: &str, says: String| self.findings.push(Finding::new(TABLE, size, field, says));
        match signer.open(&note) {
            Err(why) => differ("note", format!("is no checkpoint of this log: {why}")),
            Ok(said) => {
                if said.size != known_size {
                    differ("tree_size", format!("is {size}, and the note says {}", said.size));
                }
                if said.root != root {
                    differ("root", "is not that of the note".to_owned());
                }
                if said.origin != origin {
                    differ("origin", format!("is \"{origin}\", and the note says \"{}\"", said.origin));
                }
                let (source, is_signed) = (TABLE.to_owned(), signer.is_known());
                self.known_roots.push(KnownRoot { size: said.size, root: said.root, source, is_signed });
            }
        }
        Ok(())
    }
}

impl StoredCosignature {
    /// What is wrong with it. Of a witness whose key is unknown, only its form can be checked.
    fn fault(&self, witnesses: &[WitnessVerifierKey]) -> Option<Finding> {
        let fault = |field: &str, says: String| {
            Some(Finding::new(COSIGNATURES, format!("{} {}", self.tree_size, self.witness), field, says))
        };
        let lines = match Signature::parse_lines(&self.line) {
            Ok(lines) => lines,
            Err(error) => return fault("line", format!("is no signature: {error}")),
        };
        let [line] = lines.as_slice() else { return fault("line", format!("is {} signatures", lines.len())) };
        if line.name().as_str() != self.witness {
            return fault("witness", format!("is not {}, whose line it is", line.name()));
        }
        let key = witnesses.iter().find(|key| key.name() == line.name() && key.id() == line.id())?;
        let mut note = Note::parse(self.note.as_bytes()).ok()?;
        note.add(line.clone()).ok()?;
        if note.open(std::slice::from_ref(key)).is_ok() {
            None
        } else {
            fault("line", "is not this witness's signature of the checkpoint".to_owned())
        }
    }
}
