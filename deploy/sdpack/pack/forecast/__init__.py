"""What a build will take, before anything is fetched, exported or drawn."""
