//! The command line: parse, call the library, turn an error into text and an exit code.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cupbearer::cli::run()
}
