"""Labels from the text of reports: rules as data, and the engine that reads them."""
