//! The migrations are compiled into the program: a changed file rebuilds it.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
