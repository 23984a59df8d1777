//! `ledgerd verify-proof`: checks that the content of a proof is in the log. It uses neither database nor network.

use crate::command::{Exit, Failure, output};
use crate::log::evidence::Evidence;
use crate::record::digest::hex;
use crate::record::lane::Lane;
use crate::record::leaf::Disposition;
use crate::record::leaf_fields::LeafFields;
use crate::record::message::{Headers, utc_text};
use crate::record::subject::Subject;
use crate::record::table::Table;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tlog::checkpoint::Log;
use tlog::cosignature::{self, Quorum, cosignatures};
use tlog::note;
use tlog::receipt::{ProofFile, ProvenEntry, RECEIPT_BYTES_MAX};
use tlog::tree::leaf_hash;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 what the proof shows is in the log; 3 it is not, or the file is no proof; 64 usage."
)]
pub(crate) struct VerifyProofArguments {
    /// The proof; `-` is standard input
    file: PathBuf,
    /// The log's verifier key, from a source that is not the log's operator
    #[arg(long, value_name = "VKEY", value_parser = note::VerifierKey::parse)]
    key: note::VerifierKey,
    /// The verifier key of a witness; may be given several times
    #[arg(long = "witness", value_name = "VKEY", value_parser = cosignature::WitnessVerifierKey::parse)]
    witnesses: Vec<cosignature::WitnessVerifierKey>,
    /// How many of these witnesses must have cosigned [default: all]
    #[arg(long, value_name = "N")]
    witnesses_min: Option<usize>,
    /// The audit event that the proof must be about
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// The record that the proof must be about, of any table: several may bear one name, so name its lane, too
    #[arg(long, value_name = "ID", conflicts_with = "event_id")]
    record_id: Option<String>,
    /// The lane that it must have come on
    #[arg(long)]
    lane: Option<Lane>,
}

pub(crate) fn run(arguments: &VerifyProofArguments, as_json: bool) -> Result<(), Failure> {
    let threshold = arguments.witnesses_min.unwrap_or(arguments.witnesses.len());
    let quorum = Quorum::new(arguments.witnesses.clone(), threshold).and_then(|quorum| quorum.beside(&arguments.key));
    let quorum = quorum.map_err(|error| Failure::new(Exit::Usage, format!("--witness: {error}")))?;
    let file = read(&arguments.file)?;
    let judged = judge(&file, arguments, &quorum);
    if as_json {
        output::json(&match &judged {
            Ok(proven) => proven.value(&arguments.witnesses),
            Err(why) => json!({ "proven": false, "why": why }),
        });
        return judged.map(drop).map_err(|_| Failure::new(Exit::Difference, ""));
    }
    let proven = judged.map_err(|why| Failure::new(Exit::Difference, format!("NOT PROVEN: {why}")))?;
    proven.print(&arguments.witnesses);
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    // One byte more than a proof may have, so that a longer file is known as one.
    let limit = RECEIPT_BYTES_MAX as u64 + 1;
    let mut file = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut file)
    } else {
        std::fs::File::open(path).and_then(|opened| opened.take(limit).read_to_end(&mut file))
    };
    read.map_err(|error| Failure::new(Exit::Failed, format!("cannot read {}: {error}", path.display())))?;
    Ok(file)
}

/// What a proof proves.
struct Proven {
    fields: LeafFields,
    evidence: Evidence,
    verified: ProvenEntry,
}

/// The order matters for the reason alone: whatever is wrong, nothing is proven.
fn judge(file: &[u8], arguments: &VerifyProofArguments, quorum: &Quorum) -> Result<Proven, String> {
    let receipt = ProofFile::parse(file).map_err(|error| format!("the file is no proof: {error}"))?;
    let extra = receipt.unauthenticated_extra();
    let extra = extra.ok_or("the proof shows no entry: it has no extra data, so there is nothing to compare")?;
    let evidence = Evidence::decode(extra).map_err(|error| error.to_string())?;
    let fields = evidence.examine().map_err(|error| error.to_string())?;
    let log = Log::of_key(arguments.key.clone());
    let verified = receipt.verify(&leaf_hash(&evidence.leaf), &log, quorum).map_err(|error| error.to_string())?;
    is_about(&fields, arguments)?;
    Ok(Proven { fields, evidence, verified })
}

/// Anybody may publish what bears another record's name: on another lane, or to be rejected.
fn is_about(fields: &LeafFields, arguments: &VerifyProofArguments) -> Result<(), String> {
    let lane = Subject::parse(&fields.subject).map(|subject| subject.lane);
    if let Some(expected) = arguments.lane.filter(|expected| lane != Some(*expected)) {
        return Err(format!(
            "the proof is about a message on {}, and not on lane {expected}",
            output::safe(&fields.subject)
        ));
    }
    let Some(expected) = arguments.event_id.as_ref().or(arguments.record_id.as_ref()) else { return Ok(()) };
    if Some(expected) != fields.record_id.as_ref() {
        let found = fields.record_id.as_deref().unwrap_or("an entry without a name");
        return Err(format!("the proof is about {found}, and not about {expected}"));
    }
    if fields.disposition == Disposition::Rejected {
        return Err(format!("the proof is about a message that bears the name {expected}, and was rejected"));
    }
    if arguments.event_id.is_some() && lane.map(Lane::table) != Some(Table::AuditEvents) {
        let subject = output::safe(&fields.subject);
        return Err(format!(
            "the proof is about a record on {subject}, which is no audit event: --record-id asks for others"
        ));
    }
    Ok(())
}

impl Proven {
    fn cosigned(&self, witnesses: &[cosignature::WitnessVerifierKey]) -> Vec<(String, String)> {
        let found = cosignatures(&self.verified.checkpoint, witnesses).unwrap_or_default();
        let at = |seconds: u64| utc_text(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
        found.iter().map(|one| (one.witness.name().to_string(), at(one.at.posix_seconds()))).collect()
    }

    fn value(&self, witnesses: &[cosignature::WitnessVerifierKey]) -> Value {
        let Self { fields, evidence, verified } = self;
        let checkpoint = verified.checkpoint.checkpoint();
        let cosigned = self.cosigned(witnesses);
        json!({
            "proven": true,
            "origin": checkpoint.origin().as_str(), "index": verified.index, "tree_size": checkpoint.head().size,
            "root": hex(&checkpoint.head().root), "leaf_hash": hex(&leaf_hash(&evidence.leaf)),
            "cosigned_by": cosigned.iter().map(|(name, at)| json!({ "witness": name, "at": at })).collect::<Vec<_>>(),
            "record_id": fields.record_id, "disposition": fields.disposition.name(), "subject": fields.subject,
            "stream": fields.stream, "sequence": fields.sequence, "row_id": fields.row_id,
            "received_at": utc_text(fields.server_time_ns),
            "committed_at": utc_text(fields.committed_at_us.saturating_mul(1000)),
            "reason": fields.rejection.as_ref().map(|cause| &cause.reason),
            "detail": fields.rejection.as_ref().map(|cause| &cause.detail),
            "payload_sha256": hex(&fields.payload_sha256), "headers_sha256": fields.headers_sha256.map(|hash| hex(&hash)),
            // Bytes that are not UTF-8 have no place in JSON; they are shown escaped, and `exact` says so.
            "exact": evidence.payload.as_deref().is_none_or(|payload| std::str::from_utf8(payload).is_ok()),
            "payload": evidence.payload.as_deref().map(String::from_utf8_lossy),
            "headers": evidence.headers.as_ref().map(|_| self.headers()),
        })
    }

    fn print(&self, witnesses: &[cosignature::WitnessVerifierKey]) {
        let Self { fields, evidence, verified } = self;
        let checkpoint = verified.checkpoint.checkpoint();
        let cosigned = self.cosigned(witnesses);
        let names: Vec<&str> = cosigned.iter().map(|(name, _)| name.as_str()).collect();
        let vouched = if names.is_empty() {
            "no witness was asked for".to_owned()
        } else {
            format!("cosigned by {}", names.join(", "))
        };
        output::line(format_args!(
            "PROVEN: {} is in the log {} at index {} under its checkpoint of size {}; {vouched}",
            match fields.disposition {
                Disposition::Recorded => "this record",
                Disposition::Duplicate => "this DUPLICATE of an earlier message",
                Disposition::Rejected => "this REJECTED message, which is no record,",
            },
            checkpoint.origin(),
            verified.index,
            checkpoint.head().size
        ));
        let line = |name: &str, value: &dyn std::fmt::Display| output::line(format_args!("{name:<16}{value}"));
        line("record id", &output::safe(fields.record_id.as_deref().unwrap_or("(could not be read)")));
        line("disposition", &fields.disposition.name());
        if let Some(cause) = &fields.rejection {
            line("reason", &format_args!("{}: {}", output::safe(&cause.reason), output::safe(&cause.detail)));
        }
        line("subject", &output::safe(&fields.subject));
        line("stream", &format_args!("{}, sequence {}", output::safe(&fields.stream), fields.sequence));
        line("received at", &utc_text(fields.server_time_ns));
        line("committed at", &utc_text(fields.committed_at_us.saturating_mul(1000)));
        for (name, at) in &cosigned {
            line("cosigned at", &format_args!("{at} by {name}"));
        }
        line("payload SHA-256", &hex(&fields.payload_sha256));
        if evidence.headers.is_some() {
            self.headers().iter().for_each(|header| line("header", &output::safe(header)));
        } else if let Some(hash) = &fields.headers_sha256 {
            line("headers SHA-256", &format_args!("{} (they are not in the file)", hex(hash)));
        }
        match &evidence.payload {
            None => output::line("\n(the publisher's bytes are not in the file)"),
            Some(payload) => output::line(format_args!("\n{}", output::indented(payload))),
        }
    }

    fn headers(&self) -> Vec<String> {
        Headers::from_stored(self.evidence.headers.clone()).lines()
    }
}

#[cfg(test)]
#[path = "verify_proof_tests.rs"]
mod tests;
