use super::*;
use std::fs;
use tlog::cosignature::WitnessSignerKey;
use tlog::key::KeyName;
use tlog::note::SignerKey;

/// The documents that show commands and settings.
fn documents() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).expect("there").map(|entry| entry.expect("readable").path());
    let others = ["README.md", "nats/README.md"].map(|file| root.join(file));
    let files = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).chain(others);
    files.map(|path| (path.display().to_string(), fs::read_to_string(path).expect("UTF-8"))).collect()
}

/// The fenced blocks of a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}");
    let starts_here = |block: &&str| block.starts_with(['\n', ' ']);
    let parts = document.split(&*fence).skip(1).filter(starts_here);
    parts.filter_map(|part| part.split_once('\n')?.1.split("```").next()).collect()
}

/// A line as a shell reads it: words, quoted or not, up to what ends a command.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | ';' | '&') => break,
            (None, ' ') => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_of_the_documents_is_one() {
    let (mut checked, mut faults) = (0, Vec::new());
    let name = KeyName::parse("example.com/ledger").expect("a name");
    let key = SignerKey::from_seed(name, &[1; 32]).expect("a key").verifier().to_string();
    let witness = KeyName::parse("witness.example").expect("a name");
    let witness = WitnessSignerKey::from_seed(witness, &[2; 32]).expect("a key").verifier().to_string();
    for (name, text) in documents() {
        let joined = text.replace("\\\n", " ").replace("example.com/ledger+0123abcd+AW…", &key);
        let joined = joined.replace("witness.example+4567cdef+BA…", &witness);
        for line in blocks(&joined, "sh").into_iter().flat_map(str::lines) {
            let words = words(line.trim());
            let is_setting = |word: &&String| word.contains('=') || *word == "sudo";
            let words: Vec<&String> = words.iter().skip_while(is_setting).collect();
            if words.first().is_none_or(|word| *word != "ledgerd") {
                continue;
            }
            checked += 1;
            if let Err(error) = Arguments::try_parse_from(words) {
                faults.push(format!("{name}: {line}\n{error}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 20, "only {checked} commands were found");
}

#[test]
fn every_setting_of_the_documents_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let hash = "0123456789abcdef".repeat(4);
    let secret = folder.path().join("notify-n8n");
    fs::write(&secret, format!("whsec_{}", "QUJD".repeat(10))).expect("ours");
    let mut checked = 0;
    for (name, text) in documents() {
        let text = text.replace("/etc/ledgerd/notify-n8n", secret.to_str().expect("UTF-8"));
        for block in blocks(&text, "toml") {
            let block = block.replace("HASH-OF-A-TOKEN", &hash).replace("HASH-OF-ANOTHER", &hash.replace('0', "f"));
            let file = folder.path().join("ledgerd.toml");
            fs::write(&file, &block).expect("ours");
            let loaded = Config::load(Some(&file));
            assert!(loaded.is_ok(), "{name}: {block}\n{}", loaded.expect_err("it failed"));
            checked += 1;
        }
    }
    assert!(checked > 2, "only {checked} blocks were found");
}
