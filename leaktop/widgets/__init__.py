"""The widgets: one a file, drawing only what changed."""
