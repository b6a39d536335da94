//! The controller's program.

fn main() -> std::process::ExitCode {
    quickcmd::cli::main()
}
