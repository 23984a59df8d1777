//! What is known outside the database: the log's key, the witnesses' keys, checkpoints that were kept, and anchor files.

use crate::command::{Exit, Failure, output};
use crate::config::Config;
use crate::log::anchor::Anchor;
use crate::log::witnesses;
use crate::verify::checkpoint::{KnownRoot, Signer};
use crate::verify::findings::Finding;
use std::path::{Path, PathBuf};
use tlog::cosignature::{Quorum, WitnessVerifierKey};
use tlog::note::VerifierKey;

#[derive(Debug, clap::Args)]
pub(crate) struct OutsideArguments {
    /// A signed checkpoint of the tree, kept outside the database; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    checkpoint: Vec<PathBuf>,
    /// An anchor file, in which an instance keeps what it signed; may be given several times [default: the configured one]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    anchor: Vec<PathBuf>,
    /// The log's verifier key: every checkpoint must have its signature [default: of the configured key]
    #[arg(long, value_name = "VKEY", conflicts_with_all = ["from", "to"])]
    key: Option<String>,
    /// The verifier key of a witness, which must have cosigned the newest checkpoint; may be given several times
    #[arg(long = "witness", value_name = "VKEY", value_parser = WitnessVerifierKey::parse, conflicts_with_all = ["from", "to"])]
    witnesses: Vec<WitnessVerifierKey>,
    /// How many of these witnesses must have cosigned it [default: all]
    #[arg(long, value_name = "N", requires = "witnesses")]
    witnesses_min: Option<usize>,
}

/// What the database is compared with.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) signer: Signer,
    /// Witnesses whose cosignatures can be verified.
    pub(crate) witnesses: Vec<WitnessVerifierKey>,
    /// Those who must have cosigned the newest checkpoint.
    pub(crate) quorum: Quorum,
    quorum_min: usize,
    /// What was signed.
    pub(crate) roots: Vec<KnownRoot>,
    /// The checkpoints of each anchor file.
    pub(crate) anchored: Vec<AnchoredCheckpoints>,
    /// What is wrong with a file.
    pub(crate) findings: Vec<Finding>,
}

/// The checkpoints of the present epoch in an anchor file.
#[derive(Debug)]
pub(crate) struct AnchoredCheckpoints {
    pub(crate) file: String,
    pub(crate) origin: String,
    pub(crate) sizes: Vec<i64>,
}

impl Outside {
    pub(crate) fn of(config: &Config, arguments: &OutsideArguments) -> Result<Self, Failure> {
        let signer = signer(config, arguments)?;
        let threshold = arguments.witnesses_min.unwrap_or(arguments.witnesses.len());
        let quorum = Quorum::new(arguments.witnesses.clone(), threshold).and_then(|quorum| match signer.key() {
            Some(key) => quorum.beside(key),
            None => Ok(quorum),
        });
        let quorum = quorum.map_err(|error| Failure::new(Exit::Usage, format!("--witness: {error}")))?;
        let configured = witnesses::keys(config)?;
        let witnesses = arguments.witnesses.iter().cloned().chain(configured).collect();
        let mut outside = Self {
            signer,
            witnesses,
            quorum,
            quorum_min: threshold,
            roots: Vec::new(),
            anchored: Vec::new(),
            findings: Vec::new(),
        };
        for file in &arguments.checkpoint {
            let note = std::fs::read_to_string(file).map_err(|error| unusable(file, error))?;
            let root = outside.signer.open(&note).map_err(|why| unusable(file, why))?;
            outside.roots.push(KnownRoot {
                size: root.size,
                root: root.root,
                source: format!("checkpoint in {}", file.display()),
                is_signed: outside.signer.is_known(),
            });
        }
        outside.read_anchors(config, arguments)?;
        Ok(outside)
    }

    /// Whether the newest checkpoint must be cosigned.
    pub(crate) fn is_cosigning_asked_for(&self) -> bool {
        self.quorum_min > 0
    }

    fn read_anchors(&mut self, config: &Config, arguments: &OutsideArguments) -> Result<(), Failure> {
        let mut configured = config.checkpoint.anchor_file().ok().filter(|_| arguments.anchor.is_empty());
        if let Some(file) = configured.take_if(|file| !file.exists())
            && self.roots.is_empty()
        {
            let file = file.display();
            output::complain(&format!(
                "there is no anchor {file}: nothing that lies outside the database is compared with it"
            ));
        }
        for file in arguments.anchor.iter().chain(&configured) {
            self.read_anchor(file)?;
        }
        Ok(())
    }

    /// Each line counts: whoever forges one checkpoint need not forge the last.
    fn read_anchor(&mut self, file: &Path) -> Result<(), Failure> {
        let name = file.display().to_string();
        let notes = Anchor::at(file).checkpoints().map_err(|error| unusable(file, error))?;
        let source = format!("checkpoint in {name}");
        let mut refused = Vec::new();
        let mut anchored = AnchoredCheckpoints { file: name, origin: String::new(), sizes: Vec::new() };
        for (note, line) in notes.iter().zip(1..) {
            match self.signer.open(note) {
                Ok(said) => {
                    anchored.origin = said.origin;
                    anchored.sizes.push(i64::try_from(said.size).unwrap_or(i64::MAX));
                    let is_signed = self.signer.is_known();
                    self.roots.push(KnownRoot { size: said.size, root: said.root, source: source.clone(), is_signed });
                }
                Err(why) => refused.push((line, why)),
            }
        }
        // A key that fits no line is another log's.
        if anchored.sizes.is_empty()
            && let Some((_, why)) = refused.pop()
        {
            return Err(unusable(file, why));
        }
        self.findings.extend(refused.into_iter().map(|(line, why): (usize, String)| {
            Finding::new(
                &anchored.file,
                format!("checkpoint {line}"),
                "note",
                format!("is no checkpoint of this log: {why}"),
            )
        }));
        self.anchored.push(anchored);
        Ok(())
    }
}

/// Whose signature counts: of the key that is named, or of the log's own where this is its machine.
fn signer(config: &Config, arguments: &OutsideArguments) -> Result<Signer, Failure> {
    if let Some(key) = &arguments.key {
        let key = VerifierKey::parse(key).map_err(|error| Failure::new(Exit::Usage, format!("--key: {error}")))?;
        return Ok(Signer::of(key));
    }
    let key = config.checkpoint.key().map_err(|why| Failure::new(Exit::Configuration, why))?;
    Ok(key.map_or(Signer::UNKNOWN, |key| Signer::of(key.verifier().clone())))
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Configuration, format!("{}: {why}", file.display()))
}
