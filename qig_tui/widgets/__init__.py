"""One visible thing each. Widgets know plain data; they never import a screen or the app."""
