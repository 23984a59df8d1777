//! Generates the NATS accounts of `nats/agents.conf`: one for each actor, with its permissions on the server.
//!
//! In a shared account, the server would publish its answers on any reply subject that a publisher names, even another
//! actor's. Only what an account imports leaves it, and each lane is listed.

use crate::record::lane::Lane;
use std::collections::HashMap;
use std::fmt::Write as _;

/// An actor, and what it has to do with the ledger.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Its name: the last token of its subjects, its user, and its account.
    pub name: String,
    pub lanes: Vec<Lane>,
    /// Whether it hears of every agent's budget and may ask for it, and not for its own alone.
    pub watches_all_budgets: bool,
}

/// What nats-server.conf itself has: the ledger's account, and users whose passwords stand in variables made the same way.
const RESERVED: [&str; 5] = ["LEDGER", "LEDGERD", "SETUP", "REQUEUE", "WEBHOOKS"];

const HEADER: &str = "\
# One account for each actor: written by `ledgerd nats-accounts`, from the registered agents and the configuration's lists of writers.
# After a change of either, write it anew and tell the server (nats-server --signal reload). nats-server.conf includes it.
#
# An actor publishes in its own name, on the lanes that its account imports; it reads its own receipts and budget alerts, asks what it
# may spend, and nothing else. Any inbox is its own, for nobody else is in its account. Its password is the variable beside it.
";

/// The configuration of all these accounts.
///
/// # Errors
/// A sentence that names an actor which cannot stand in a subject, or two that would have one password.
pub fn configuration(actors: &[Actor]) -> Result<String, String> {
    let mut text = HEADER.to_owned();
    let mut named: HashMap<String, &str> = HashMap::new();
    for actor in actors {
        let name = actor.name.as_str();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(format!("the actor \"{name}\" cannot stand in a subject: it has letters, digits, - and _"));
        }
        if RESERVED.contains(&name.to_uppercase().as_str()) {
            return Err(format!(
                "an actor {name} would share its account, or its password's variable, with nats-server.conf"
            ));
        }
        if let Some(other) = named.insert(password_variable(name), name) {
            return Err(format!("the actors {other} and {name} would share the variable {}", password_variable(name)));
        }
        text.push('\n');
        text.push_str(&account(actor));
    }
    Ok(text)
}

fn password_variable(name: &str) -> String {
    format!("{}_PASSWORD", name.to_uppercase().replace('-', "_"))
}

fn account(Actor { name, lanes, watches_all_budgets }: &Actor) -> String {
    let password = password_variable(name);
    let receipts = format!("receipt.{name}.*");
    let whose = if *watches_all_budgets { "*" } else { name };
    let (alerts, budget) = (format!("alert.budget.{whose}"), format!("budget.{whose}"));
    let last_receipt = format!("$JS.API.DIRECT.GET.LEDGER_RECEIPTS.{receipts}");
    let mut imports = String::new();
    let services =
        lanes.iter().map(|lane| format!("ledger.{lane}.{name}")).chain([last_receipt.clone(), budget.clone()]);
    for subject in services {
        let _ = writeln!(imports, "    {{ service: {{ account: LEDGER, subject: \"{subject}\" }} }}");
    }
    for subject in [&receipts, &alerts] {
        let _ = writeln!(imports, "    {{ stream: {{ account: LEDGER, subject: \"{subject}\" }} }}");
    }
    format!(
        "\"{name}\": {{
  users: [{{ user: \"{name}\", password: ${password}, permissions: {{
    publish: [\"ledger.*.{name}\", \"{last_receipt}\", \"{budget}\"]
    subscribe: [\"_INBOX.>\", \"_INBOX_{name}.>\", \"{receipts}\", \"{alerts}\"]
  }} }}]
  imports: [
{imports}  ]
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str) -> Actor {
        Actor { name: name.to_owned(), lanes: vec![Lane::Exec], watches_all_budgets: false }
    }

    #[test]
    fn a_name_that_would_open_another_subject_is_refused() {
        for name in ["", "*", ">", "A.B", "A B", "A\"", "$A", "Ä"] {
            configuration(&[actor(name)]).expect_err(name);
        }
        for name in ["LEDGER", "setup", "Ledgerd"] {
            let error = configuration(&[actor(name)]).expect_err(name);
            assert!(error.contains("nats-server.conf"), "{error}");
        }
        let error = configuration(&[actor("A-B"), actor("A_B")]).expect_err("one variable for two");
        assert!(error.contains("A-B and A_B"), "{error}");
    }
}
