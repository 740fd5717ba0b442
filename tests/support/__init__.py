"""What tests share: servers, projects, tables and calls."""
