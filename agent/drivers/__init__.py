"""One module for each container manager, each behind agent.driver.Driver."""
