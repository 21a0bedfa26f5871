/// The files that are deployed with the Worker.
pub trait Assets {
    /// Reads a file of text, by its path from `/`.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn read(&self, path: &str) -> impl Future<Output = Result<String, String>>;
}
