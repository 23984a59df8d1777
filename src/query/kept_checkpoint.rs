//! A checkpoint that somebody kept, against the log as it stands: the root over as many of the present leaves must be the same.

use crate::log::queries::stored_hashes;
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use serde::Serialize;
use tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use tlog::note::{Note, VerifierKey};
use tlog::plan::RootPlan;
use utoipa::ToSchema;

/// What became of it.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct KeptCheckpoint {
    pub verdict: KeptVerdict,
    /// The same in a sentence.
    pub says: String,
    /// Its log's name, where it can be read.
    pub origin: Option<String>,
    pub tree_size: Option<u64>,
    /// Whether its signature is of the log's key; null: this console has no key to check it with.
    pub is_signed: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptVerdict {
    /// The present log begins with exactly the entries that it vouches for.
    Contained,
    /// The present log begins with others.
    Different,
    /// It vouches for more entries than there are.
    Longer,
    /// Hashes that the answer needs are not stored any more, or were never.
    NotStored,
    /// It is no checkpoint.
    Unreadable,
}

/// A checkpoint has a few hundred bytes; each witness adds some.
const BYTES_MAX: usize = 16 * 1024;

impl Reader {
    pub(crate) async fn kept_checkpoint(
        &self,
        text: &str,
        key: Option<&VerifierKey>,
    ) -> Result<KeptCheckpoint, DatabaseError> {
        let (checkpoint, is_signed) = match read(text, key) {
            Ok(read) => read,
            Err(says) => {
                let verdict = KeptVerdict::Unreadable;
                return Ok(KeptCheckpoint { verdict, says, origin: None, tree_size: None, is_signed: None });
            }
        };
        let kept = checkpoint.head();
        let present = self.tail().await?.size().unsigned_abs();
        let (verdict, says) = if kept.size > present {
            let lost = kept.size - present;
            (
                KeptVerdict::Longer,
                format!("It vouches for {} entries, and the log has {present}: {lost} are gone.", kept.size),
            )
        } else {
            let plan = RootPlan::new(kept.size);
            match plan.build(&stored_hashes(&self.0, &plan.ranges()).await?) {
                Ok(head) if head.root == kept.root => (
                    KeptVerdict::Contained,
                    format!("The present log begins with exactly the {} entries that it vouches for.", kept.size),
                ),
                Ok(_) => (
                    KeptVerdict::Different,
                    format!(
                        "The first {} entries of the present log are not those that it vouches for: somebody rewrote the log.",
                        kept.size
                    ),
                ),
                Err(missing) => (KeptVerdict::NotStored, format!("It cannot be compared: {missing}.")),
            }
        };
        let origin = Some(checkpoint.origin().as_str().to_owned());
        Ok(KeptCheckpoint { verdict, says, origin, tree_size: Some(kept.size), is_signed })
    }
}

/// What the text says, and whether the key signed it.
fn read(text: &str, key: Option<&VerifierKey>) -> Result<(Checkpoint, Option<bool>), String> {
    if text.len() > BYTES_MAX {
        return Err(format!("A checkpoint has at most {BYTES_MAX} bytes."));
    }
    // As a form sends it.
    let text = format!("{}\n", text.replace("\r\n", "\n").trim());
    let unreadable = |why: &dyn std::fmt::Display| format!("This is no checkpoint: {why}.");
    let Ok(note) = Note::parse(text.as_bytes()) else {
        // The three lines alone say what is compared, too.
        let checkpoint = Checkpoint::parse(&text).map_err(|error| unreadable(&error))?;
        return Ok((checkpoint, key.map(|_| false)));
    };
    let checkpoint = Checkpoint::parse(note.unverified_text()).map_err(|error| unreadable(&error))?;
    let is_signed = key.map(|key| SignedCheckpoint::parse_in_any_epoch(text.as_bytes(), key).is_ok());
    Ok((checkpoint, is_signed))
}
