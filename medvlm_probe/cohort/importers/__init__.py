"""One importer per public data set: from the files as their publisher lays them out to a manifest's columns."""
