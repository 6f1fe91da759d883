"""The terminal dashboard: reads run directories and shows them. Imports nothing, ever."""
