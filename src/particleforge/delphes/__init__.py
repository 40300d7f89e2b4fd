"""Reader of Delphes ROOT files."""
