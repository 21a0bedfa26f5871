"""A backend that tracks where a project's files are, and deletes a project with all of them."""
